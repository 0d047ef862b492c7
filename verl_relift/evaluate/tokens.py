"""The model's tokenizer, checked against the model, and chats as token ids."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import EvaluationError
from .questions import Question


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """What identifies a model: folder, architecture, sha256 over the weights, positions and vocabulary."""

    path: Path
    architecture: str
    weights_sha256: str
    max_positions: int
    vocab_size: int


def inspect_model(path: Path) -> ModelFolder:
    """Read a Hugging Face folder's config and hash its weights, at the speed of the disk.

    Raises EvaluationError when the folder is no model or lacks weights that its index names.
    """
    config_path = path / "config.json"
    if not config_path.is_file():
        raise EvaluationError(
            f"{path}: no config.json; --model takes a Hugging Face model folder (see verl_relift.export)"
        )
    config = json.loads(config_path.read_text())
    config = config | config.get("text_config", {})
    shards = _shards(path)
    with ThreadPoolExecutor(4) as threads:
        digests = list(threads.map(_sha256, shards))
    whole = hashlib.sha256("".join(digests).encode()).hexdigest() if len(digests) > 1 else digests[0]
    return ModelFolder(
        path, config.get("architectures", ["?"])[0], whole, config["max_position_embeddings"], config["vocab_size"]
    )


def load_tokenizer(model: ModelFolder) -> Any:
    """The folder's tokenizer.

    Raises EvaluationError when it can make ids that the model has no embedding for, or has no chat template.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model.path)
    if len(tokenizer) > model.vocab_size:
        raise EvaluationError(
            f"{model.path}: the tokenizer has {len(tokenizer)} tokens, the model {model.vocab_size}: not a pair"
        )
    if not tokenizer.chat_template:
        raise EvaluationError(f"{model.path}: the tokenizer has no chat template; put a chat_template.jinja beside it")
    return tokenizer


def encode_prompts(tokenizer: Any, questions: Sequence[Question]) -> dict[str, list[int]]:
    """Token ids of every question's chat, ending where the assistant's turn begins; by the question's key.

    Raises EvaluationError when the template rejects a chat.
    """
    encoded = {}
    for question in questions:
        try:
            encoded[question.key] = tokenizer.apply_chat_template(
                list(question.messages), add_generation_prompt=True, tokenize=True, return_dict=False
            )
        except Exception as error:  # jinja and the template itself raise what they like
            raise EvaluationError(f"question {question.key}: the chat template rejects it: {error}") from error
    return encoded


def check_lengths(model: ModelFolder, prompts: dict[str, list[int]], max_tokens: int) -> int:
    """The longest sequence that can come up, in tokens.

    Raises EvaluationError when a prompt and `max_tokens` together do not fit the model's positions.
    """
    longest = max(map(len, prompts.values()))
    if longest + max_tokens > model.max_positions:
        raise EvaluationError(
            f"the longest prompt ({longest} tokens) and --max-tokens {max_tokens} exceed the model's "
            f"{model.max_positions} positions; --max-tokens {max(1, model.max_positions - longest)} or less fits"
        )
    return longest + max_tokens


def _shards(path: Path) -> list[Path]:
    index = path / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        missing = [name for name in names if not (path / name).is_file()]
        if missing:
            raise EvaluationError(f"{path}: lacks {missing[0]}, which model.safetensors.index.json names")
        return [path / name for name in names]
    if not (path / "model.safetensors").is_file():
        raise EvaluationError(f"{path}: no safetensors weights")
    return [path / "model.safetensors"]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
