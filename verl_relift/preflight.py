"""Everything that can be known to fail before Ray starts, in the order in which it is asked.

Each check yields one line per problem: the key or file, what is wrong, and the fix.
"""

import importlib.util
import io
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

from hydra.errors import InstantiationException
from omegaconf import DictConfig, ListConfig

from .checks import ConfigurationError, batch_problems, chosen_method, divisibility_problems, settings_problems
from .rewards.problems import has_own_function
from .model_support import model_problems
from .settings import Source

# Rows of each parquet file whose answers are graded before training, evenly spaced; `data_preprocess.check` grades all.
GRADED_ROWS = 5000

# A model's vocabulary may be padded (Qwen2.5-7B: 399 unused rows); more than this is another model's tokenizer.
MAX_VOCABULARY_PADDING = 1024


def check(config: DictConfig) -> None:
    """Raise `ConfigurationError` with what can be found wrong without Ray and without a model in memory."""
    for find_problems in (_packages, _machine, settings_problems, batch_problems, _verl, _reward, model_problems, _model, _memory, _data):
        problems = list(find_problems(config))
        if problems:
            raise ConfigurationError("\n".join(problems))


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


def _verl(config: DictConfig) -> Iterator[str]:
    """Yield what verl's own validation refuses."""
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    try:
        with redirect_stdout(io.StringIO()):  # it prints that all is well
            validate_config(config, need_reference_policy(config), need_critic(config))
    except (AssertionError, ValueError, TypeError, NotImplementedError, InstantiationException) as error:
        yield f"verl refuses the configuration: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _reward(config: DictConfig) -> Iterator[str]:
    from .rollout.reward import reward_function_problems

    yield from reward_function_problems(config)


def _model(config: DictConfig) -> Iterator[str]:
    from transformers import AutoConfig, AutoTokenizer

    model = config.actor_rollout_ref.model
    try:
        hf = AutoConfig.from_pretrained(model.path, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(model.tokenizer_path or model.path, trust_remote_code=False)
    except (OSError, ValueError) as error:
        yield (
            f"actor_rollout_ref.model.path={model.path}: no model can be read there "
            f"({str(error).splitlines()[0]}); give a Hugging Face folder or hub id"
        )
        return
    if len(tokenizer) > hf.vocab_size or hf.vocab_size - len(tokenizer) > MAX_VOCABULARY_PADDING:
        yield (
            f"{model.path}: the tokenizer has {len(tokenizer)} tokens, the model's vocabulary {hf.vocab_size}; use the "
            "model's own tokenizer, or run data_preprocess.prepare_model"
        )
    if tokenizer.eos_token_id is None:
        yield f"{model.path}: the tokenizer has no end-of-sequence token; demonstrations must end with one"
    if tokenizer.chat_template is None:
        yield f"{model.path}: the tokenizer has no chat template; add one with data_preprocess.prepare_model"
    yield from divisibility_problems(config, hf)


def _memory(config: DictConfig) -> Iterator[str]:
    """What `verl_relift.plan` refuses on this machine."""
    from .plan import refusals

    yield from refusals(config)


def _data(config: DictConfig) -> Iterator[str]:
    from .data.check import check_files
    from .data.errors import DataError
    from .data.findings import TRAINING_COPES, Kind

    data = config.data
    method, settings = chosen_method(config)
    wanted = method.needs(settings).demonstrations
    train, validation = _files(data.train_files), _files(data.val_files)
    for file in (*train, *validation):
        if not Path(file).expanduser().exists():
            yield (f"{file}: no such file (data.train_files / data.val_files); make it with data_preprocess.<name>")
            return
    allowed = set(TRAINING_COPES)
    if not data.filter_overlong_prompts:
        allowed.discard(Kind.PROMPT_TOO_LONG)
    try:
        report = check_files(
            train,
            validation,
            tokenizer=config.actor_rollout_ref.model.tokenizer_path or config.actor_rollout_ref.model.path,
            max_prompt_tokens=data.max_prompt_length,
            max_target_tokens=wanted.max_tokens if wanted is not None else None,
            demonstrations=wanted is not None and wanted.source is Source.DATASET,
            column=wanted.column if wanted is not None else "target",
            verify=wanted is None or wanted.verify,
            mathematics=not has_own_function(config),
            sample=GRADED_ROWS,
            allowed=allowed,
        )
    except DataError as error:
        yield str(error)
        return
    yield from (str(finding) for finding in report.errors)
    rows = sum(summary.rows for summary in report.files if summary.file in train)
    if not report.errors and rows < data.train_batch_size:
        yield (
            f"data.train_files hold {rows} questions, fewer than data.train_batch_size={data.train_batch_size}; "
            "lower it"
        )


def _files(value: str | ListConfig) -> list[str]:
    return [str(file) for file in value] if isinstance(value, list | ListConfig) else [str(value)]
