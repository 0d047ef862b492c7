"""A whole plan from a composed configuration."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ..checks import batch_problems, divisibility_problems, missing, require_none, settings_problems
from ..model_support import bridge_problems, completed, config_problems, positions_problem
from ..schema.rules import Choice, Each, Text, Whole, shown
from . import hardware
from .advice import Budget, changes, largest_token_budget, problems
from .job import read
from .report import Plan
from .shapes import ModelShape, Preparation, load_config, shape_of
from .uncounted import uncounted

_TRANSFORMER = "actor_rollout_ref.actor.megatron.override_transformer_config"
_ENGINES = {
    f"{_TRANSFORMER}.recompute_granularity": Choice((None, "selective", "full")),
    f"{_TRANSFORMER}.recompute_method": Choice((None, "uniform", "block")),
    f"{_TRANSFORMER}.recompute_num_layers": Whole(1, null=True),
    f"{_TRANSFORMER}.recompute_modules": Each(Text(), null=True),
    "actor_rollout_ref.rollout.engine_kwargs.vllm.num_gpu_blocks_override": Whole(1, null=True),
}


def make_plan(
    config: DictConfig,
    gpu: hardware.Accelerator | None,
    response_tokens: float | None,
    transformer_engine: bool | None = None,
    machine_memory: int | None = None,
    preparation: Preparation | None = None,
) -> Plan:
    """Judge `config`.

    Args:
        gpu: what the run would have; ignored on CPU.
        response_tokens: mean length of a response; None: half of the longest.
        machine_memory: bytes of host memory; None: on CPU what is available now, on GPUs no limit.
        preparation: stands for the model's folder while that is missing.

    Raises:
        ConfigurationError: training rejects the configuration whatever the memory, or `response_tokens` is not
            possible; a line per problem.
        UnknownModel: the model's shape is not known.
    """
    shape, source = _accepted_model(config, preparation)
    require_none(_response_problems(config, response_tokens))
    job = read(config, transformer_engine, (shape, source))
    response_tokens = response_tokens or job.batches.response_tokens / 2
    # A micro-batch of the local spec is padded to its longest sequence.
    mean = job.batches.prompt_tokens / 2 + response_tokens
    padding = max(1.0, (job.batches.prompt_tokens + job.batches.response_tokens) / mean)
    if job.cuda:
        budget = Budget.of_gpu(gpu.memory, padding, machine_memory)
    else:
        gpu, budget = None, Budget.of_machine(machine_memory or hardware.available_memory(), padding)
    too_much = problems(job, budget)
    return Plan(
        job=job,
        budget=budget,
        accelerator=gpu,
        response_tokens=response_tokens,
        too_much=too_much,
        token_budget=largest_token_budget(job, budget),
        steps=changes(job, budget) if too_much else [],
        uncounted=uncounted(config),
        notes=list(_notes(config, preparation)),
    )


def _accepted_model(config: DictConfig, preparation: Preparation | None) -> tuple[ModelShape, str]:
    """Return the model's shape and where it comes from, of a configuration that training accepts.

    The first check that finds something ends it, as in training: what follows may come from the same cause.

    Raises:
        ConfigurationError: training rejects the configuration before it looks at memory.
        UnknownModel: the model's shape is not known.
    """
    path = config.actor_rollout_ref.model.path
    if isinstance(path, str):
        require_none(missing(config, ["actor_rollout_ref.model.path"]))
    require_none(settings_problems(config))
    require_none(_engine_problems(config))
    require_none(bridge_problems(config))
    model, source = load_config(path, preparation)
    require_none(_model_problems(model, source))
    shape = shape_of(model, source)
    if shape.positions is not None:  # before what such lengths need besides, as in training
        require_none(positions_problem(config.actor_rollout_ref.rollout.max_model_len, shape.positions))
    require_none(divisibility_problems(config, shape))
    require_none(batch_problems(config))
    return shape, source


def _model_problems(model: Mapping[str, Any], source: str) -> Iterator[str]:
    """Yield why training refuses a model, by its `config.json`."""
    for problem in config_problems(completed(model)):
        yield f"actor_rollout_ref.model.path: {source} has {problem}"


def _engine_problems(config: DictConfig) -> Iterator[str]:
    """Yield what Megatron-Core and vLLM, which are not asked here, refuse of the values that a plan computes with."""
    for key, rule in _ENGINES.items():
        value = OmegaConf.select(config, key)
        value = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
        if value != [] and (wrong := rule.problem(value)):
            yield f"{key}={shown(value)} {wrong}"
    settings = config.actor_rollout_ref.actor.megatron.override_transformer_config
    names = ("recompute_method", "recompute_num_layers")
    if settings.get("recompute_granularity") == "full" and None in map(settings.get, names):
        yield f"{_TRANSFORMER}.recompute_granularity=full needs recompute_method=uniform and recompute_num_layers=1"


def _response_problems(config: DictConfig, response_tokens: float | None) -> Iterator[str]:
    longest = config.data.max_response_length
    if response_tokens is not None and not 0 < response_tokens <= longest:
        yield (
            f"--response-tokens={response_tokens:g}: the mean length of a response must be above 0 and at most "
            f"data.max_response_length={longest}; leave it out for half of that"
        )


def _notes(config: DictConfig, preparation: Preparation | None) -> Iterator[str]:
    """Yield what the plan stands on that is not there."""
    if preparation is not None and preparation.stands_for(config.actor_rollout_ref.model.path):
        yield str(preparation)
    data = config.data
    unset = [line.split(" is not set")[0] for line in missing(config, ["data.train_files", "data.val_files"])]
    files = {
        str(file)
        for key, value in (("data.train_files", data.train_files), ("data.val_files", data.val_files))
        if key not in unset
        for file in ([value] if isinstance(value, str) else value)
    }
    absent = sorted(repr(file) if " " in file else file for file in files if not Path(file).expanduser().exists())
    if unset or absent:
        said = [f"{' and '.join(unset)} not set"] * bool(unset) + [f"not there: {', '.join(absent)}"] * bool(absent)
        spaced = "; several files are separated by commas" if any("'" in file for file in absent) else ""
        yield f"plan reads no data files ({'; '.join(said)}){spaced}"
