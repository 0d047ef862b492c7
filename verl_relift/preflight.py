"""Everything that can be known to fail before Ray starts, in the order in which it is asked.

Each check yields one line per problem: the key or file, what is wrong, and the fix.
"""

import importlib.util
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from . import engines
from .checks import (
    SHOWN,
    batch_problems,
    chosen_method,
    counted,
    divisibility_problems,
    missing,
    require_none,
    settings_problems,
)
from .data.findings import LISTED, NEED_TOKENIZER, FileSummary, Finding, Report
from .methods import Needs, without_solutions
from .model_support import longest_sequence, model_problems, positions_problem
from .rewards.function import Answer
from .rewards.problems import has_own_function
from .run import console
from .run.model_path import path_problems
from .run.near import did_you_mean
from .schema import name_problems
from .settings import DemonstrationSettings, Source

# Rows of each parquet file whose answers are graded before training, evenly spaced; `data_preprocess.check` grades all.
GRADED_ROWS = 5000

# What verl reserves in Ray for each training rank.
CORES_PER_RANK = 3

# A model's vocabulary may be padded (Qwen2.5-7B: 399 unused rows); more than this is another model's tokenizer.
MAX_VOCABULARY_PADDING = 1024


def check(config: DictConfig) -> list[str]:
    """Check what can be known without Ray and without a model in memory.

    Returns:
        Lines about the data: what the run leaves out, and how many questions have a demonstration.

    Raises:
        ConfigurationError: with what is wrong.
    """
    notes: list[str] = []
    of_machine = (settings_problems, _packages, _machine, _cluster)
    of_sizes = (_model_path, model_problems, _positions, batch_problems, _folders)
    of_engines = (
        engines.verl_problems,
        engines.named_problems,
        engines.megatron_problems,
        engines.optimizer_problems,
        engines.vllm_problems,
        engines.ray_problems,
    )
    for find_problems in (
        missing,
        *of_machine,
        *of_sizes,
        *of_engines,
        _reward,
        _model,
        engines.weight_problems,
        _memory,
    ):
        require_none(find_problems(config))
    require_none(_data(config, notes))
    require_none(_tried_reward(config, notes))
    return notes


def _folders(config: DictConfig) -> Iterator[str]:
    """Yield which folders of the run could not be made or written."""
    trainer = config.trainer
    for key in ("default_local_dir", "validation_data_dir", "rollout_data_dir"):
        folder = trainer[key]
        if folder is None:
            continue
        if "://" in folder:
            yield f"trainer.{key}={folder} is no folder of this machine; name one, perhaps on a shared file system"
            continue
        there = Path(folder).expanduser().absolute()
        while not there.exists():
            there = there.parent
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            problem = "cannot be written" if there.is_dir() else "is not a folder"
            yield f"trainer.{key}={folder}: {there} {problem}; choose another place"


def _packages(config: DictConfig) -> Iterator[str]:
    for module, what in (("vllm", "the rollout engine"), ("megatron.core", "the training engine"), ("mbridge", "it")):
        try:
            found = importlib.util.find_spec(module) is not None
        except ModuleNotFoundError:
            found = False
        if not found:
            yield f"the package {module} is not installed ({what} needs it): run `make install`, see docs/install.md"


def _machine(config: DictConfig) -> Iterator[str]:
    """Yield what this machine lacks beside the packages."""
    from .run import toolkit
    from .upstream import transformer_engine

    cuda = config.trainer.device == "cuda"
    yield from toolkit.gpu_problems() if cuda else toolkit.cpu_problems()
    demand = next(transformer_engine.who_demands(config), None)
    if demand is not None:
        problem = transformer_engine.found_in_another_process() if cuda else "its layers run on CUDA only"
        if problem is not None:
            yield f"{demand} needs Transformer Engine, but {problem}; remove it, or see docs/install.md"
    for model in ("actor", "ref"):
        key = f"actor_rollout_ref.{model}.megatron.override_transformer_config.attention_backend"
        if OmegaConf.select(config, key) == "flash" and importlib.util.find_spec("flash_attn") is None:
            yield f"{key}=flash: flash-attn is not installed; leave it auto, which takes what is installed"


def _cluster(config: DictConfig) -> Iterator[str]:
    """Yield what a cluster that this command starts on this machine would lack."""
    init, trainer = config.ray_kwargs.ray_init, config.trainer
    if os.environ.get("RAY_ADDRESS") or init.get("address"):
        return  # it joins one whose size is not known yet
    if trainer.nnodes > 1:
        yield (
            f"trainer.nnodes={trainer.nnodes}: no Ray cluster is named, and this command starts one node; set "
            "RAY_ADDRESS (examples/slurm does it), or trainer.nnodes=1"
        )
        return
    wanted = trainer.n_gpus_per_node
    devices = init.get("num_gpus") if init.get("num_gpus") is not None else _devices(trainer.device)
    if devices is not None and devices < wanted:
        yield f"trainer.n_gpus_per_node={wanted}: Ray will find {counted(devices, 'GPU')} here; lower it"
    units = config.transfer_queue.backend.SimpleStorage.num_data_storage_units
    workers = config.relift.rollout.workers if config.relift.rollout.batched else 0
    cores = CORES_PER_RANK * wanted + units + 1 + workers
    available = init.get("num_cpus") if init.get("num_cpus") is not None else os.cpu_count()
    if available < cores:
        yield (
            f"ray_kwargs.ray_init.num_cpus={available}: the run's actors wait for {cores} (logical) cores, "
            f"{CORES_PER_RANK} for each of trainer.n_gpus_per_node={wanted}; lower that, or set this to {cores} or more"
        )


def _devices(platform: str) -> int | None:
    """Return how many GPUs Ray will find on this machine; None where it does not matter."""
    if platform == "cpu":
        return None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() and name.strip() != "-1"])
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def _reward(config: DictConfig) -> Iterator[str]:
    from .rollout.reward import reward_function_problems

    yield from reward_function_problems(config)


def _tried_reward(config: DictConfig, notes: list[str]) -> Iterator[str]:
    """Yield that a function of the user's returns no reward for an answer; `notes` gets that it raised.

    An exception rejects nothing, because a function may need what is not there before the run, such as its cluster.
    """
    from .rollout.reward import try_reward_function

    method, settings = chosen_method(config)
    wanted = method.needs(settings).demonstrations
    column = wanted.column if wanted is not None else "target"
    problem, is_certain = try_reward_function(config, _first_answer(_files(config.data.train_files)[0], column))
    if problem and is_certain:
        yield problem
    elif problem:
        notes.append(f"  note: {problem}; training ends at the first such answer")


def _first_answer(file: str, column: str) -> Answer:
    """Return the first row of a file, which has been checked, as an answer: its demonstration, or an empty one."""
    import pyarrow.parquet as pq

    from .data.errors import DataError
    from .data.fields import target_text

    with pq.ParquetFile(Path(file).expanduser()) as parquet:
        [row] = next(parquet.iter_batches(1)).to_pylist()
    try:
        demonstration = target_text(row.get(column))
    except DataError:
        demonstration = None
    truth = row["reward_model"]["ground_truth"]
    return Answer(demonstration or "", truth, row["data_source"], row.get("extra_info") or {})


def _model_path(config: DictConfig) -> Iterator[str]:
    """Yield that a folder or hub id does not exist, that the hub can't be asked, or that `config.json` is damaged."""
    from .data.model_config import read_config

    model = config.actor_rollout_ref.model
    yield from path_problems("actor_rollout_ref.model.path", model.path, console.say)
    file = Path(model.path).expanduser() / "config.json"
    if file.is_file():
        try:
            read_config(file)
        except ValueError as error:
            yield f"actor_rollout_ref.model.path: {error}"
    if model.tokenizer_path not in (None, model.path):
        yield from path_problems("actor_rollout_ref.model.tokenizer_path", model.tokenizer_path, console.say)


def _model(config: DictConfig) -> Iterator[str]:
    from transformers import AutoConfig

    from .data.errors import DataError
    from .data.tokens import load_tokenizer

    model = config.actor_rollout_ref.model
    try:
        hf = AutoConfig.from_pretrained(model.path, trust_remote_code=False)
    except (OSError, ValueError) as error:
        yield (
            f"actor_rollout_ref.model.path={model.path}: no model can be read there "
            f"({str(error).splitlines()[0]}); {_whole_model(model.path)}"
        )
        return
    try:
        tokenizer = load_tokenizer(model.tokenizer_path or model.path)
    except DataError as error:
        yield str(error)
        return
    if len(tokenizer) > hf.vocab_size or hf.vocab_size - len(tokenizer) > MAX_VOCABULARY_PADDING:
        yield (
            f"{model.path}: the tokenizer has {len(tokenizer)} tokens, the model's vocabulary {hf.vocab_size}; use the "
            "model's own tokenizer, or run data_preprocess.prepare_model"
        )
    if tokenizer.eos_token_id is None:
        yield f"{model.path}: the tokenizer has no end-of-sequence token; demonstrations must end with one"
    template = model.custom_chat_template or tokenizer.chat_template
    if template is None:
        yield f"{model.path}: the tokenizer has no chat template; add one with data_preprocess.prepare_model"
    else:
        yield from _template_problems(config, template)
    yield from divisibility_problems(config, hf)
    yield from engines.transformer_problems(config, hf)


def _whole_model(path: str) -> str:
    """Return what to do about a model that is there and can't be read."""
    if Path(path).expanduser().is_dir():
        return "give a folder with config.json, weights and tokenizer"
    return f"`hf download {path}` completes its copy in the cache"


def _template_problems(config: DictConfig, template: Any) -> Iterator[str]:
    """Yield what is no chat template, and what it does not read."""
    from jinja2 import TemplateSyntaxError

    from .data.chat import template_variables

    if not isinstance(template, str):
        return  # several, of which transformers chooses
    try:
        known = template_variables(template)
    except TemplateSyntaxError as error:
        model = config.actor_rollout_ref.model
        own = f"the chat template of {model.tokenizer_path or model.path}"
        where = "actor_rollout_ref.model.custom_chat_template" if model.custom_chat_template else own
        yield f"{where}: line {error.lineno}: {error.message.rstrip('.')}; correct the template"
        return
    kwargs = OmegaConf.to_container(config.data.apply_chat_template_kwargs)
    yield from name_problems("data.apply_chat_template_kwargs", kwargs, known, "the chat template")


def _positions(config: DictConfig) -> Iterator[str]:
    """Yield that the model reads no such lengths: what else they need, such as larger batches, would not help."""
    from transformers import AutoConfig

    try:
        hf = AutoConfig.from_pretrained(config.actor_rollout_ref.model.path, trust_remote_code=False)
    except (OSError, ValueError):
        return  # `_model` says so
    yield from positions_problem(config.actor_rollout_ref.rollout.max_model_len, longest_sequence(hf.to_dict()))


def _memory(config: DictConfig) -> Iterator[str]:
    """What `verl_relift.plan` refuses on this machine."""
    from .plan import refusals

    yield from refusals(config)


def _data(config: DictConfig, notes: list[str]) -> Iterator[str]:
    """Yield what is wrong with the data; `notes` gets the lines that `check` returns."""
    from .data.check import check_files
    from .data.errors import DataError
    from .data.findings import OF_ALL_FILES, TRAINING_COPES, Kind
    from .data.hints import hint_problems
    from .data.tokens import TokenCounter

    data, model = config.data, config.actor_rollout_ref.model
    method, settings = chosen_method(config)
    needs = method.needs(settings)
    wanted = needs.demonstrations
    train, validation = _files(data.train_files), _files(data.val_files)
    for file in (*train, *validation):
        if problem := _no_parquet(file):
            yield problem
            return
    if needs.hints_column is not None:
        yield from hint_problems(train, needs.hints_column, "method.column")
    allowed = {*TRAINING_COPES, *OF_ALL_FILES}
    if not data.filter_overlong_prompts:
        allowed.discard(Kind.PROMPT_TOO_LONG)
    try:
        report = check_files(
            train,
            validation,
            tokenizer=TokenCounter.load(
                model.tokenizer_path or model.path,
                model.custom_chat_template,
                OmegaConf.to_container(data.apply_chat_template_kwargs, resolve=True),
            ),
            max_prompt_tokens=data.max_prompt_length,
            max_target_tokens=wanted.max_tokens if wanted is not None else None,
            demonstrations=wanted is not None and wanted.source.needs_dataset,
            column=wanted.column if wanted is not None else "target",
            verify=wanted is None or wanted.verify,
            mathematics=not has_own_function(config),
            sample=GRADED_ROWS,
            allowed=allowed,
            guess_validation=False,
        )
    except DataError as error:
        yield str(error)
        return
    if report.errors:
        faults = sum(n for summary in report.files for kind, n in summary.counts.items() if kind not in allowed)
        yield from (str(finding) for finding in report.errors[:SHOWN])
        if faults > SHOWN:
            yield f"and {faults - SHOWN} more; {_listing(config, report.errors)} lists up to {LISTED:,} of a kind"
        return
    yield from _unscored(config, report.files)
    for_training, for_validation = ([s for s in report.files if s.file in files] for files in (train, validation))
    if wanted is not None and wanted.source is not Source.TEACHER:
        yield from _solutions(config, report, for_training)
        yield from _usable(wanted, for_training, notes)
    yield from _amounts(config, needs, for_training, "train")
    yield from _amounts(config, None, for_validation, "val")
    notes += _left_out(data.max_prompt_length, {"training": for_training, "validation": for_validation})
    notes += _shared(report, for_training)


def _usable(wanted: DemonstrationSettings, files: list[FileSummary], notes: list[str]) -> Iterator[str]:
    """Yield that every demonstration is too long; `notes` gets how many there are, and how many of them are."""
    having, rows = (sum(getattr(summary, name) for summary in files) for name in ("demonstrations", "rows"))
    notes.append(f"  {having:,} of {rows:,} training questions have a demonstration")
    lengths = [length for summary in files for length in summary.targets]
    too_long = sum(length > wanted.max_tokens for length in lengths)
    limit = f"longer than method.demonstrations.max_tokens={wanted.max_tokens}"
    if 0 < too_long == len(lengths) and wanted.source.needs_dataset:
        yield (
            f"all {too_long:,} demonstrations that were measured are {limit} (the shortest has {min(lengths):,} "
            "tokens), so none would be trained on; raise it"
        )
    elif too_long:
        notes[-1] += f"; {too_long:,} of {len(lengths):,} that were measured are {limit}: not used"


def _listing(config: DictConfig, errors: Iterable[Finding]) -> str:
    """Return the command that lists such faults of a file."""
    words = ["python", "-m", "data_preprocess.check", "FILE", "--json"]
    if has_own_function(config):
        words.append("--own-reward")
    if {finding.kind for finding in errors} & NEED_TOKENIZER:
        model = config.actor_rollout_ref.model
        words += ["--tokenizer", model.tokenizer_path or model.path]
        words += ["--max-prompt-tokens", str(config.data.max_prompt_length)]
    return shlex.join(words)


def _no_parquet(file: str) -> str | None:
    """Return why a file cannot be parquet, in one line; None if it may be."""
    from .data.sources import format_of

    keys = "(data.train_files / data.val_files)"
    path = Path(file).expanduser()
    if "://" in file:
        return f"{file}: training reads files of this machine {keys}; download it, then name the file"
    if not path.exists() and "*" in path.name:
        return f"{file}: no such file {keys}; name each one: '[{path.parent}/a.parquet,{path.parent}/b.parquet]'"
    if not path.exists():
        made = "python -m data_preprocess.jsonl makes it of your own data (docs/own-data.md)"
        return f"{file}: no such file {keys}; {did_you_mean(file, Path.is_file) or made}"
    if path.is_dir():
        names = ",".join(str(each) for each in sorted(path.glob("*.parquet"))[:SHOWN])
        return f"{file}: is a folder {keys}; name its parquet files" + (f", such as '[{names}]'" if names else "")
    if format_of(path) in (".jsonl", ".ndjson", ".json", ".csv", ".tsv"):
        make = "python -m data_preprocess.jsonl makes parquet of it (docs/own-data.md)"
        return f"{file}: training reads parquet {keys}; {make}"
    return None


def _solutions(config: DictConfig, report: Report, files: list[FileSummary]) -> Iterator[str]:
    """Yield that no training file has a demonstration, or a right one, where the method trains on them."""
    from .data.findings import Kind

    _, settings = chosen_method(config)
    found = {kind: [one for one in report.findings if one.kind is kind] for kind in Kind}
    if found[Kind.NO_DEMONSTRATIONS] and not any(summary.demonstrations for summary in files):
        column, why = settings.demonstrations.column, found[Kind.NO_DEMONSTRATIONS][0].problem
        yield (
            f"no row of data.train_files has a solution in column {column} ({why}), and method={config.method.name} "
            "trains on them: make the file again with --target-column, name their column in "
            f"method.demonstrations.column, {without_solutions(settings)}"
        )
    elif not any(summary.verified for summary in files):
        yield from (str(one) for one in found[Kind.NO_RIGHT_DEMONSTRATION])


def _shared(report: Report, for_training: list[FileSummary]) -> Iterator[str]:
    """Yield what training and validation share, with which validation measures what was learned by heart."""
    from .data.findings import Kind

    whole = [finding for finding in report.findings if finding.kind is Kind.OVERLAP and finding.row is None]
    yield from (f"  note: {finding.file}: {finding.problem}" for finding in whole)
    questions = sum(summary.counts[Kind.OVERLAP] for summary in for_training) - len(whole)
    if questions:
        yield f"  note: {questions:,} training questions are, or resemble, validation questions (docs/data.md)"


def _left_out(longest: int, files: Mapping[str, list[FileSummary]]) -> Iterator[str]:
    """Yield a line if verl leaves out questions whose prompts are too long, which it says in the log only."""
    from .data.findings import Kind

    counts = {
        purpose: (sum(summary.counts[Kind.PROMPT_TOO_LONG] for summary in of), sum(summary.rows for summary in of))
        for purpose, of in files.items()
    }
    parts = [f"{long:,} of {rows:,} {purpose} questions" for purpose, (long, rows) in counts.items() if long]
    if parts:
        yield f"  left out: {' and '.join(parts)}, which take more than data.max_prompt_length={longest} tokens"


def _unscored(config: DictConfig, files: list[FileSummary]) -> Iterator[str]:
    """Yield sources of data that verl's own reward function, where it is chosen, does not know."""
    from verl.utils.reward_score import default_compute_score

    if config.reward.custom_reward_function.path is not None:
        return
    for source in dict.fromkeys(source for summary in files for source in summary.sources):
        try:
            default_compute_score(source, "", "0", {})
        except NotImplementedError:
            yield (
                f"reward.custom_reward_function.path=null: verl has no reward function for data_source={source}; leave "
                "the key out, or name a function of your own"
            )
        except Exception:  # it knows the source, and has found no answer in an empty response
            continue


def _amounts(config: DictConfig, needs: Needs | None, files: list[FileSummary], purpose: str) -> Iterator[str]:
    """Yield what there are too few rows for.

    Args:
        needs: of the method; None for validation, for which one row is enough.
        files: what the check has counted in the files of this purpose.
        purpose: `train` or `val`.
    """
    from .data.findings import Kind

    data, trainer = config.data, config.trainer
    rows = sum(summary.rows for summary in files)
    if data.filter_overlong_prompts:
        rows -= sum(summary.counts[Kind.PROMPT_TOO_LONG] for summary in files)
    most = data[f"{purpose}_max_samples"]
    rows = min(rows, most) if most > 0 else rows
    wanted = 1 if needs is None else data.train_batch_size
    if rows < wanted:
        of_batch = f", fewer than data.train_batch_size={wanted}; lower it" if wanted > 1 else ""
        short = f"of at most data.max_prompt_length={data.max_prompt_length} tokens"
        yield f"data.{purpose}_files hold {rows} questions {short}{of_batch or '; raise it'}"
        return
    if needs is None:
        return
    demonstrations = sum(summary.demonstrations for summary in files)
    of_data = needs.demonstrations is not None and needs.demonstrations.source.needs_dataset
    if of_data and needs.exact_rows and needs.supervised_rows > demonstrations > 0:  # `_solutions` says that it is 0
        yield (
            f"method.sft.batch_size={needs.supervised_rows}: data.train_files hold {demonstrations} demonstrations, so "
            "no update would ever be due; lower it"
        )
    steps = rows // data.train_batch_size * trainer.total_epochs
    if trainer.total_training_steps and steps < trainer.total_training_steps:
        yield (
            f"trainer.total_epochs={trainer.total_epochs} ends after {steps} of "
            f"trainer.total_training_steps={trainer.total_training_steps}; raise the one or lower the other"
        )


def _files(value: str | ListConfig) -> list[str]:
    return [str(file) for file in value] if isinstance(value, list | ListConfig) else [str(value)]
