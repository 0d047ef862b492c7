"""Loads a model's tokenizer, checks it against the model, and encodes chats as token ids."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..data import weight_files
from ..data.chat import answer_start, opens_thought, prompt_ids, template_variables
from ..data.model_config import read_config
from ..schema import name_problems
from .errors import EvaluationError
from .questions import EvaluationQuestion


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """What identifies a model.

    Attributes:
        path: its Hugging Face folder.
        architecture: class name in config.json.
        weights_sha256: hash over all weight files, hex.
        max_positions: longest sequence, in tokens.
        vocab_size: number of embeddings.
        width: `hidden_size`.
    """

    path: Path
    architecture: str
    weights_sha256: str
    max_positions: int
    vocab_size: int
    width: int = 0


def inspect_model(path: Path) -> ModelFolder:
    """Read the config of a Hugging Face folder and hash its weights.

    Args:
        path: the folder.

    Raises:
        EvaluationError: the folder holds no model, or lacks weights that its index names.
    """
    config_path = path / "config.json"
    if not config_path.is_file():
        raise EvaluationError(f"{path}: no config.json; {_instead(path)}")
    try:
        config = read_config(config_path)
    except ValueError as error:
        raise EvaluationError(str(error)) from error
    config = config | config.get("text_config", {})
    if lacking := [name for name in ("max_position_embeddings", "vocab_size") if name not in config]:
        raise EvaluationError(f"{config_path}: no {' and no '.join(lacking)}; --model takes a language model")
    shards = _shards(path)
    for shard in shards:
        if problem := weight_files.fault(shard):
            raise EvaluationError(f"{shard} {problem}")
    with ThreadPoolExecutor(4) as threads:
        digests = list(threads.map(_sha256, shards))
    whole = hashlib.sha256("".join(digests).encode()).hexdigest() if len(digests) > 1 else digests[0]
    return ModelFolder(
        path,
        config.get("architectures", ["?"])[0],
        whole,
        config["max_position_embeddings"],
        config["vocab_size"],
        config.get("hidden_size", 0),
    )


def _instead(path: Path) -> str:
    """Return what to give in place of a folder without a model, which may be a run's or a checkpoint's."""
    steps = [path] if path.name.startswith("global_step_") else path.glob("global_step_*")
    numbered = {int(number): step for step in steps if (number := step.name.rpartition("_")[2]).isdigit()}
    there = {number: step / "actor" / "model" / "huggingface" for number, step in numbered.items()}
    if found := [there[number] for number in sorted(there) if (there[number] / "config.json").is_file()]:
        return f"of this run, --model takes {found[-1]}, or the folder that verl_relift.export writes"
    return "--model takes a Hugging Face model folder, such as verl_relift.export writes"


def load_tokenizer(model: ModelFolder) -> Any:
    """Load the tokenizer of a model folder.

    Args:
        model: the model.

    Returns:
        The transformers tokenizer.

    Raises:
        EvaluationError: there is none, it has more tokens than the model has embeddings, or no chat template.
    """
    from ..data.errors import DataError
    from ..data.tokens import load_tokenizer as load

    try:
        tokenizer = load(str(model.path))
    except DataError as error:
        raise EvaluationError(str(error)) from error
    if len(tokenizer) > model.vocab_size:
        raise EvaluationError(
            f"{model.path}: the tokenizer has {len(tokenizer)} tokens but the model only {model.vocab_size} "
            "embeddings; use the tokenizer that belongs to the model"
        )
    if not tokenizer.chat_template:
        raise EvaluationError(
            f"{model.path}: the tokenizer has no chat template; add chat_template.jinja to the folder"
        )
    return tokenizer


def encode_prompts(
    tokenizer: Any, questions: Sequence[EvaluationQuestion], template: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, list[int]]:
    """Encode the chat of every question, ending where the assistant's turn begins.

    Args:
        tokenizer: a transformers tokenizer with a chat template.
        questions: the questions.
        template: arguments of the chat template.

    Returns:
        Token ids by the question's key.

    Raises:
        EvaluationError: the template rejects a chat, or does not read an argument.
    """
    if template and isinstance(tokenizer.chat_template, str):  # otherwise several, of which transformers chooses
        known = template_variables(tokenizer.chat_template)
        for problem in name_problems("--chat-template-kwargs", template, known, "the chat template"):
            raise EvaluationError(problem)
    encoded = {}
    for question in questions:
        try:
            encoded[question.key] = prompt_ids(tokenizer, question.messages, **template)
        except Exception as error:  # jinja and the template may raise any type
            raise EvaluationError(f"question {question.key}: the chat template rejects it: {error}") from error
    return encoded


def questions_in_thought(
    tokenizer: Any, questions: Sequence[EvaluationQuestion], prompts: dict[str, list[int]]
) -> frozenset[str]:
    """Return the keys of the questions whose prompt opens the thought in which the response begins.

    Args:
        tokenizer: a transformers tokenizer.
        questions: the questions.
        prompts: token ids by question, from `encode_prompts`.
    """
    starts = {q.key: answer_start(tokenizer, prompts[q.key], q.messages) for q in questions}
    return frozenset(key for key, start in starts.items() if opens_thought(start))


def check_lengths(model: ModelFolder, prompts: dict[str, list[int]], max_tokens: int) -> int:
    """Return the length of the longest possible sequence, in tokens.

    Args:
        model: the model.
        prompts: token ids by question.
        max_tokens: length limit of a response.

    Raises:
        EvaluationError: the longest prompt and `max_tokens` together exceed the model's positions.
    """
    longest = max(map(len, prompts.values()))
    if longest + max_tokens > model.max_positions:
        raise EvaluationError(
            f"the longest prompt ({longest} tokens) and --max-tokens {max_tokens} exceed the model's "
            f"{model.max_positions} positions; use --max-tokens {max(1, model.max_positions - longest)} or less"
        )
    return longest + max_tokens


def _shards(path: Path) -> list[Path]:
    index = path / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        missing = [name for name in names if not (path / name).is_file()]
        if missing:
            raise EvaluationError(
                f"{path}: lacks {missing[0]}, which model.safetensors.index.json names; complete the folder"
            )
        return [path / name for name in names]
    if not (path / "model.safetensors").is_file():
        raise EvaluationError(f"{path}: no safetensors weights; --model takes a Hugging Face model folder")
    return [path / "model.safetensors"]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
