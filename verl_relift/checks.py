"""What can be known to fail from the configuration alone; `plan` and `preflight` ask.

Each check yields one line per problem: the key, what is wrong, and the fix.
"""

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from . import schema
from .consistency import micro_batch_problems, platform_problems, sampling_problems, schedule_problems
from .methods import Method, Needs, read_method
from .rewards.problems import has_own_function, reward_problems
from .run import checkpoints, resume
from .settings import ProgramSettings, SettingsError, build

# The only one that shows groups before it evicts them.
SAMPLER = "pkg://verl_relift.rollout.sampler"


# What of a graded rollout verl's group filter can read: the reward, or a column of this package's reward function.
FILTER_METRICS = ("acc", "score", "reward")


class ConfigurationError(ValueError):
    """The run cannot work as configured. One line per problem."""


# What verl's configuration names where the user names nothing.
_DEFAULTS = {
    "actor_rollout_ref.model.path": ("~/models/deepseek-llm-7b-chat", "a Hugging Face folder or hub id"),
    "data.train_files": ("~/data/rlhf/gsm8k/train.parquet", "parquet files; docs/data.md makes them"),
    "data.val_files": ("~/data/rlhf/gsm8k/test.parquet", "parquet files; docs/data.md makes them"),
}

SHOWN = 5  # problems of one kind that are named; the rest are counted


def shortened(problems: Sequence[str]) -> list[str]:
    """Return the first few problems, and a line with the number of the others."""
    more = len(problems) - SHOWN
    return [*problems[:SHOWN], f"and {more} more"] if more > 1 else list(problems)


def require_none(found: Iterable[str]) -> None:
    """Check that there are no problems.

    Raises:
        ConfigurationError: with the first few of them.
    """
    if problems := list(found):
        raise ConfigurationError("\n".join(shortened(problems)))


def missing(config: DictConfig, keys: Iterable[str] = tuple(_DEFAULTS)) -> Iterator[str]:
    """Yield which of what a run needs the user has not named."""
    for key in keys:
        default, what = _DEFAULTS[key]
        if OmegaConf.select(config, key) == default and not Path(default).expanduser().exists():
            yield f"{key} is not set; give {what}"


def rejected(problems: Iterable[str]) -> str:
    """Return the lines with which a command rejects a configuration."""
    return "\n".join(f"rejected: {problem}" for problem in problems)


def program_settings(config: DictConfig) -> ProgramSettings:
    """Return the group `relift`.

    Raises:
        SettingsError: naming the first key that is unknown, of the wrong type or out of range.
    """
    return build(ProgramSettings, OmegaConf.to_container(config.relift, resolve=True), "relift")


def chosen_method(config: DictConfig) -> tuple[type[Method], Any]:
    """Return the method of the group `method`, and its settings.

    Raises:
        SettingsError: naming the first key that is unknown, of the wrong type or out of range.
    """
    return read_method(OmegaConf.to_container(config.method, resolve=True))


def data_parallel_size(config: DictConfig) -> int:
    """Return how many model replicas the training ranks form."""
    megatron, trainer = config.actor_rollout_ref.actor.megatron, config.trainer
    ranks = megatron.tensor_model_parallel_size * megatron.pipeline_model_parallel_size * megatron.context_parallel_size
    return trainer.n_gpus_per_node * trainer.nnodes // ranks


def settings_problems(config: DictConfig) -> Iterator[str]:
    """Yield what is wrong with the settings of method and program, and with the keys of verl's that they rule out."""
    broken = list(schema.problems(config))
    if broken:
        yield from broken
        return
    try:
        program = program_settings(config)
        method, settings = chosen_method(config)
    except SettingsError as error:
        yield str(error)
        return
    if method.stages(settings):
        return  # each stage is checked as a run of its own
    needs = method.needs(settings)
    yield from _accepted_problems(config, program)
    yield from platform_problems(config)
    if needs.rollouts and needs.demonstrations and config.actor_rollout_ref.rollout.n < 2:
        yield (
            f"actor_rollout_ref.rollout.n={config.actor_rollout_ref.rollout.n}: a group needs at least 2 rollouts; "
            "the paper uses 8"
        )
    asks_again = method.asks_again(settings)
    yield from _filter_problems(config, needs, asks_again)
    yield from reward_problems(config)
    yield from _rollout_problems(config, program, method.writes_roles() or asks_again)
    yield from method.problems(settings, config)
    splices = needs.supervised_rows > 0 and not needs.own_step
    transformer = config.actor_rollout_ref.actor.megatron.override_transformer_config
    if (splices or method.weighs_tokens(settings)) and transformer.get("calculate_per_token_loss"):
        yield (
            "actor_rollout_ref.actor.megatron.override_transformer_config.calculate_per_token_loss=true divides all "
            f"gradients by one token count, but method={config.method.name} has one for each term of its loss; set it "
            "to false"
        )
    yield from _checkpoint_problems(config)
    if needs.demonstrations is not None and needs.demonstrations.source.asks_teacher:
        variable = settings.teacher.api_key_env
        if variable and not os.environ.get(variable):
            yield (
                f"method.teacher.api_key_env={variable}: the environment has no such variable; export the teacher's "
                "key under that name"
            )
    yield from sampling_problems(config)
    yield from schedule_problems(config)


def _accepted_problems(config: DictConfig, program: ProgramSettings) -> Iterator[str]:
    """Yield keys of `accept_changes` that nothing has; a checkpoint of another method may have had other keys of it."""
    for key in program.resume.accept_changes:
        group, _, name = key.rpartition(".")
        there = OmegaConf.select(config, group) if group else config
        if not key.startswith("method.") and not (isinstance(there, DictConfig) and name in there):
            yield f"relift.resume.accept_changes=[{key}]: there is no such key; correct it"


def _filter_problems(config: DictConfig, needs: Needs, asks_again: bool) -> Iterator[str]:
    """Yield where groups that `algorithm.filter_groups` removes would be lost for the method."""
    groups = config.algorithm.filter_groups
    if not groups.enable:
        return
    if groups.metric is None or (not has_own_function(config) and groups.metric not in FILTER_METRICS):
        yield (
            f"algorithm.filter_groups.metric={schema.shown(groups.metric)} is nothing that the rewards have; set it to "
            f"{', '.join(FILTER_METRICS)}"
        )
    if asks_again:
        yield (
            "algorithm.filter_groups.enable=true evicts questions that every rollout fails before "
            f"method={config.method.name} asks them again; set it to false"
        )
    sampler = config.trainer.v1.sampler.custom_sampler.path
    if needs.failed_groups and sampler != SAMPLER:
        yield (
            f"trainer.v1.sampler.custom_sampler.path={sampler}: with algorithm.filter_groups.enable=true, "
            f"method={config.method.name} gets the questions that are evicted from {SAMPLER} only; leave the key out"
        )


def _rollout_problems(config: DictConfig, program: ProgramSettings, guided: bool) -> Iterator[str]:
    """Yield what the chosen way of generating cannot do; `guided`: the method changes or adds to what is sampled."""
    rollout = config.actor_rollout_ref.rollout
    if not program.rollout.batched:
        if config.reward.num_workers < 1:
            yield "relift.rollout.batched=false needs verl's reward workers: set reward.num_workers=8"
        if guided:
            yield (
                f"relift.rollout.batched=false: method={config.method.name} guides what is sampled or adds to it, "
                "which verl's agent loop does not support; set it to true"
            )
        return
    if not config.trainer.v1.sampler.custom_sampler.path:
        yield (
            "trainer.v1.sampler.custom_sampler.path=null: verl's own sampler would wait forever for a rollout that "
            "failed; leave verl_relift's, or set relift.rollout.batched=false"
        )
    if config.trainer.device == "cpu" and program.rollout.seeded and rollout.enable_chunked_prefill:
        yield (
            "actor_rollout_ref.rollout.enable_chunked_prefill=true with relift.rollout.seeded=true: vLLM rewinds "
            "a request's random generator after a partial prefill, which a CPU generator cannot do; set one false"
        )


def _checkpoint_problems(config: DictConfig) -> Iterator[str]:
    try:
        resume.find(config)
    except checkpoints.CheckpointError as error:
        yield str(error)


def batch_problems(config: DictConfig) -> Iterator[str]:
    """Yield what cannot be divided among the ranks, or is too small for a batch."""
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    megatron, trainer = actor.megatron, config.trainer
    world = trainer.n_gpus_per_node * trainer.nnodes
    ranks = megatron.tensor_model_parallel_size * megatron.pipeline_model_parallel_size * megatron.context_parallel_size
    if world % ranks:
        yield (
            f"{counted(world, 'GPU')} (trainer.nnodes x trainer.n_gpus_per_node) cannot be divided into model replicas "
            f"of {ranks} (actor_rollout_ref.actor.megatron: tensor x pipeline x context parallel size); make that "
            f"product {_one_of(_divisors(world))}"
        )
        return
    replica = rollout.tensor_model_parallel_size * rollout.data_parallel_size * rollout.pipeline_model_parallel_size
    if world % replica:
        yield (
            f"{counted(world, 'GPU')} cannot be divided into vLLM replicas of {replica} "
            "(actor_rollout_ref.rollout.tensor_model_parallel_size x data x pipeline); make that product "
            f"{_one_of(_divisors(world))}"
        )
    data_parallel = data_parallel_size(config)
    batch, mini = config.data.train_batch_size, actor.ppo_mini_batch_size
    if batch % mini:
        yield (
            f"data.train_batch_size={batch} must be divisible by actor_rollout_ref.actor.ppo_mini_batch_size={mini}; "
            f"set it to {_nearest(batch, mini)}"
        )
    if mini * rollout.n % data_parallel:
        yield (
            f"actor_rollout_ref.actor.ppo_mini_batch_size={mini} x rollout.n={rollout.n} rollouts must be divisible "
            f"by the data-parallel size {data_parallel}; set ppo_mini_batch_size to "
            f"{_nearest(mini, data_parallel // math.gcd(data_parallel, rollout.n))}"
        )
    if not rollout.enable_chunked_prefill and rollout.max_num_batched_tokens < rollout.max_model_len:
        yield (
            f"actor_rollout_ref.rollout.max_num_batched_tokens={rollout.max_num_batched_tokens} must be at least "
            f"max_model_len={rollout.max_model_len} while enable_chunked_prefill=false; raise it"
        )
    too_small = list(micro_batch_problems(config, data_parallel))
    yield from too_small
    try:
        method, settings = chosen_method(config)
    except SettingsError:
        return  # settings_problems says it
    needs = method.needs(settings)
    if not too_small:
        yield from _demonstration_problems(config, needs)
    yield from _supervised_problems(needs, data_parallel)


def _supervised_problems(needs: Needs, data_parallel: int) -> Iterator[str]:
    """Yield that a supervised update's demonstrations cannot be divided among the model replicas."""
    rows = needs.supervised_rows
    if 0 < rows < data_parallel:
        yield (
            f"method.sft.batch_size={rows} is smaller than the data-parallel size {data_parallel}: no update would "
            f"ever be due; set it to {data_parallel} or a multiple of it"
        )
    elif needs.exact_rows and rows % data_parallel:
        yield (
            f"method.sft.batch_size={rows} must be divisible by the data-parallel size {data_parallel}; set it to "
            f"{_nearest(rows, data_parallel)}"
        )


def counted(number: int, what: str) -> str:
    """Return a number with its noun, which gets an s where it needs one."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def _divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]


def _one_of(sizes: Sequence[int]) -> str:
    """Return sizes to choose from, as text."""
    return " or ".join(filter(None, (", ".join(map(str, sizes[:-1])), str(sizes[-1]))))


def _nearest(number: int, divisor: int) -> str:
    """Return the multiples of `divisor` around a number, as text."""
    below = number // divisor * divisor
    return _one_of([size for size in (below, below + divisor) if size])


def _demonstration_problems(config: DictConfig, needs: Needs) -> Iterator[str]:
    """Yield where the longest demonstration does not fit a micro-batch."""
    actor = config.actor_rollout_ref.actor
    if needs.demonstrations is None or not (needs.supervised_rows or needs.joined_rows):
        return
    own = needs.own_step and needs.token_budget is not None
    key = "method.sft.max_token_len_per_gpu" if own else "actor_rollout_ref.actor.ppo_max_token_len_per_gpu"
    budget = (needs.token_budget if own else actor.ppo_max_token_len_per_gpu) * actor.megatron.context_parallel_size
    longest = config.data.max_prompt_length + needs.demonstrations.max_tokens
    if budget < longest:
        yield (
            f"{key}={budget} must hold the longest demonstration, data.max_prompt_length + "
            f"method.demonstrations.max_tokens = {longest} tokens; raise it, or lower max_tokens"
        )


def divisibility_problems(config: DictConfig, hf) -> Iterator[str]:
    """Yield what of a model tensor and pipeline parallelism cannot divide; `hf` is its Hugging Face configuration."""
    megatron, rollout = config.actor_rollout_ref.actor.megatron, config.actor_rollout_ref.rollout
    groups = getattr(hf, "num_key_value_heads", None) or hf.num_attention_heads
    engine = "actor_rollout_ref.actor.megatron"
    heads = {"attention heads": hf.num_attention_heads}
    sizes = heads | {
        "key-value heads": groups,
        "hidden units of the feed-forward layer": hf.intermediate_size,
        "entries of the vocabulary": hf.vocab_size,
    }
    layers, virtual = {"layers": hf.num_hidden_layers}, megatron.virtual_pipeline_model_parallel_size
    for key, size, divided in (
        (f"{engine}.tensor_model_parallel_size", megatron.tensor_model_parallel_size, sizes),
        (f"{engine}.pipeline_model_parallel_size", megatron.pipeline_model_parallel_size, layers),
        ("actor_rollout_ref.rollout.tensor_model_parallel_size", rollout.tensor_model_parallel_size, heads),
    ):
        if wrong := [f"{count} {name}" for name, count in divided.items() if count % size]:
            world = config.trainer.n_gpus_per_node * config.trainer.nnodes
            yield (
                f"{key}={size} must divide the model's {', '.join(wrong)}; choose "
                f"{_one_of(_divisors(math.gcd(world, *divided.values())))}"
            )
    stage = hf.num_hidden_layers // megatron.pipeline_model_parallel_size
    if virtual and not hf.num_hidden_layers % megatron.pipeline_model_parallel_size and stage % virtual:
        yield (
            f"{engine}.virtual_pipeline_model_parallel_size={virtual} must divide the {stage} layers of a stage; "
            f"choose {_one_of(_divisors(stage))}"
        )
