"""Counts a model's parameters and where they are under tensor and pipeline parallelism."""

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..data.model_config import read_config

# model_type of config.json -> (query, key and value have a bias, query and key are normalized per head)
_FAMILIES = {
    "llama": (False, False),
    "qwen2": (True, False),
    "qwen3": (False, True),
}

HUB_TIMEOUT = 3.0  # seconds

_KEY = "actor_rollout_ref.model.path"
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")


class UnknownModel(ValueError):
    """The model has no config.json, or its architecture is not supported by the arithmetic."""


@dataclass(frozen=True)
class ModelShape:
    """A dense decoder with grouped-query attention and a gated feed-forward layer, by Hugging Face's names."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    tie_word_embeddings: bool
    attention_bias: bool  # of query, key and value; the output projection has none
    query_key_norm: bool
    positions: int | None = field(default=None, compare=False)  # tokens that the model reads; None: not known

    @property
    def query_size(self) -> int:
        """Width of all queries of a token."""
        return self.num_attention_heads * self.head_dim

    @property
    def key_value_size(self) -> int:
        """Width of all keys of a token; values have the same."""
        return self.num_key_value_heads * self.head_dim

    @property
    def embedding(self) -> int:
        """Parameters of the token embedding; an untied output layer has the same number."""
        return self.vocab_size * self.hidden_size

    @property
    def layer_sharded(self) -> int:
        """Parameters of one layer that tensor parallelism divides."""
        query, key_value = self.query_size, self.key_value_size
        attention = self.hidden_size * (2 * query + 2 * key_value)
        bias = query + 2 * key_value if self.attention_bias else 0
        return attention + bias + 3 * self.hidden_size * self.intermediate_size

    @property
    def layer_replicated(self) -> int:
        """Parameters of one layer that every tensor-parallel rank holds: the norms."""
        return 2 * self.hidden_size + (2 * self.head_dim if self.query_key_norm else 0)

    @property
    def parameters(self) -> int:
        """All parameters; tied embeddings count once."""
        embeddings = self.embedding * (1 if self.tie_word_embeddings else 2)
        return embeddings + self.num_hidden_layers * (self.layer_sharded + self.layer_replicated) + self.hidden_size

    def on_rank(self, tensor: int = 1, pipeline: int = 1, stage: int = 0) -> int:
        """Return the parameters on one rank.

        With tied embeddings and several stages, Megatron keeps the matrix on the first and on the last stage.

        Args:
            tensor: tensor-parallel size.
            pipeline: pipeline-parallel size.
            stage: the rank's pipeline stage.
        """
        layers = self.num_hidden_layers // pipeline
        count = layers * (self.layer_sharded // tensor + self.layer_replicated)
        first, last = stage == 0, stage == pipeline - 1
        if first:
            count += self.embedding // tensor
        if last:
            count += self.hidden_size
            if not (first and self.tie_word_embeddings):
                count += self.embedding // tensor
        return count

    @property
    def largest_tensor(self) -> int:
        """Elements of the largest weight that training sends to vLLM."""
        return max(self.embedding, self.hidden_size * self.intermediate_size)


_QWEN25_05B = ModelShape(151936, 896, 4864, 24, 14, 2, 64, True, True, False, 32768)
_QWEN25_15B = ModelShape(151936, 1536, 8960, 28, 12, 2, 128, True, True, False, 32768)
_QWEN25_7B = ModelShape(152064, 3584, 18944, 28, 28, 4, 128, False, True, False, 32768)
_LLAMA31_8B = ModelShape(128256, 4096, 14336, 32, 32, 8, 128, False, False, False, 131072)

# From the models' config.json, for machines that cannot reach the hub.
BUILT_IN = {
    "Qwen/Qwen2.5-0.5B": _QWEN25_05B,
    "Qwen/Qwen2.5-0.5B-Instruct": _QWEN25_05B,
    "Qwen/Qwen2.5-1.5B": replace(_QWEN25_15B, positions=131072),
    "Qwen/Qwen2.5-1.5B-Instruct": _QWEN25_15B,
    "Qwen/Qwen2.5-Math-1.5B": replace(_QWEN25_15B, positions=4096),
    "Qwen/Qwen2.5-Math-1.5B-Instruct": replace(_QWEN25_15B, positions=4096),
    "Qwen/Qwen2.5-7B": replace(_QWEN25_7B, positions=131072),
    "Qwen/Qwen2.5-7B-Instruct": _QWEN25_7B,
    "Qwen/Qwen2.5-Math-7B": replace(_QWEN25_7B, positions=4096),
    "Qwen/Qwen2.5-Math-7B-Instruct": replace(_QWEN25_7B, positions=4096),
    "meta-llama/Llama-3.1-8B": _LLAMA31_8B,
    "meta-llama/Llama-3.1-8B-Instruct": _LLAMA31_8B,
}


def built_in(name: str) -> str | None:
    """Return the name in `BUILT_IN` of a hub id in any case; None: its shape is not built in."""
    return next((known for known in BUILT_IN if known.lower() == name.lower()), None)


def from_config(config: Mapping[str, Any]) -> ModelShape:
    """Return the shape that a `config.json` describes.

    Args:
        config: contents of `config.json`.

    Raises:
        UnknownModel: the architecture is not supported.
    """
    family = config.get("model_type")
    if family not in _FAMILIES:
        raise UnknownModel(f"model_type {family!r} is not supported (only dense {', '.join(sorted(_FAMILIES))})")
    bias, query_key_norm = _FAMILIES[family]
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    return ModelShape(
        vocab_size=config["vocab_size"],
        hidden_size=hidden,
        intermediate_size=config["intermediate_size"],
        num_hidden_layers=config["num_hidden_layers"],
        num_attention_heads=heads,
        num_key_value_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or hidden // heads,
        tie_word_embeddings=bool(config.get("tie_word_embeddings", False)),
        attention_bias=bias or bool(config.get("attention_bias", False)),
        query_key_norm=query_key_norm,
        positions=_positions(config),
    )


def _positions(config: Mapping[str, Any]) -> int | None:
    """Return how many tokens a model reads; scaled positions count by their type, as in `model_support`."""
    positions = config.get("max_position_embeddings")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind, factor = rope.get("rope_type", rope.get("type")), rope.get("factor", 1)
    if kind == "yarn":
        return int(rope.get("original_max_position_embeddings", positions) * factor)
    return int(positions * factor) if kind == "linear" else positions


@dataclass(frozen=True)
class Preparation:
    """What `data_preprocess.prepare_model` would make.

    Attributes:
        folder: where.
        base: folder, hub id, or hub id without its owner of the model that it copies.
        positions: tokens that the copy reads; None: those of the base model.
    """

    folder: str
    base: str
    positions: int | None

    @classmethod
    def of_command(cls, command: str) -> "Preparation":
        """Return what a command makes.

        Raises:
            ValueError: it is no command of `prepare_model`.
        """
        words = [
            part for word in shlex.split(command) for part in (word.split("=", 1) if word.startswith("--") else [word])
        ]
        given = dict(pairwise(words))
        if "data_preprocess.prepare_model" not in words or not {"--model", "--output"} <= given.keys():
            raise ValueError("no command of data_preprocess.prepare_model with --model and --output")
        positions = given.get("--max-positions")
        return cls(given["--output"], given["--model"], int(positions) if positions else None)

    def config(self) -> tuple[dict[str, Any], str]:
        """Return the `config.json` that the folder will have, and where it comes from; see `load_config`."""
        published = [name for name in BUILT_IN if name.partition("/")[2] == self.base]
        there = Path(self.base).expanduser().is_dir()
        config, source = load_config(published[0] if published and not there else self.base)
        if self.positions is None:
            return config, source
        return config | {"max_position_embeddings": self.positions}, f"{source}; {self.positions} positions"

    def stands_for(self, path: str) -> bool:
        """Whether a model is what this makes, and not there yet."""
        return self.folder == path and not Path(path).expanduser().exists()

    def __str__(self) -> str:
        return f"{self.folder} is not there yet; planned as what prepare_model makes of {self.base}"


def load(path: str, preparation: Preparation | None = None) -> tuple[ModelShape, str]:
    """Return the shape of a model and where it comes from; see `load_config`."""
    config, source = load_config(path, preparation)
    return shape_of(config, source), source


def shape_of(config: Mapping[str, Any], source: str) -> ModelShape:
    """Return the shape that a `config.json` from `source` describes; see `from_config`."""
    try:
        return from_config(config)
    except (KeyError, TypeError) as error:
        raise UnknownModel(f"{source}: not a model's config.json ({error!r})") from error
    except UnknownModel as error:
        raise UnknownModel(f"{source}: {error}") from error


def load_config(path: str, preparation: Preparation | None = None) -> tuple[dict[str, Any], str]:
    """Return the contents of a model's `config.json` and where they come from.

    A hub id is looked up in the local cache, then on the hub, then in `BUILT_IN`.

    Args:
        path: a Hugging Face folder or hub id.
        preparation: stands for its folder while that is missing.

    Raises:
        UnknownModel: there is no such file; the message names the key, `path` and what is missing.
    """
    folder = Path(path).expanduser()
    if not path.strip():
        raise UnknownModel(f"{_KEY} is empty; give a Hugging Face folder or hub id")
    if folder.is_file():
        raise UnknownModel(f"{_KEY}={path} is a file; give its folder, {folder.parent}")
    if folder.is_dir():
        file = folder / "config.json"
        if not file.exists():
            raise UnknownModel(f"{_KEY}={path}: the folder has no config.json; give a Hugging Face model folder")
        return _read(file), str(file)
    if preparation is not None and preparation.stands_for(path):
        return preparation.config()
    if not _HUB_ID.fullmatch(path):
        raise UnknownModel(f"{_KEY}={path}: no such folder; give a Hugging Face folder or hub id (OWNER/NAME)")
    try:
        return _hub_config(path), f"config.json of {path}"
    except Exception as error:  # offline, no such repository, no permission: each has several types
        if name := built_in(path):
            return to_config(BUILT_IN[name]), f"built-in shape of {name}: its config.json could not be fetched"
        raise UnknownModel(
            f"{_KEY}={path}: no such folder, and the hub gives no config.json ({type(error).__name__}); correct the "
            f"name, or fetch it where the hub can be reached (hf download {path} config.json --local-dir DIR) and give "
            "DIR"
        ) from error


def _hub_config(repository: str) -> dict[str, Any]:
    """Return `config.json` from the local cache, or from the hub in one request; `hf_hub_download` retries for 20 s."""
    import huggingface_hub
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    cached = huggingface_hub.try_to_load_from_cache(repository, "config.json")
    if isinstance(cached, str):
        return json.loads(Path(cached).read_text())
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        raise ConnectionError("HF_HUB_OFFLINE is set")
    url = huggingface_hub.hf_hub_url(repository, "config.json")
    response = get_session().get(url, headers=build_hf_headers(), timeout=HUB_TIMEOUT, follow_redirects=True)
    hf_raise_for_status(response)
    return response.json()


def _read(file: Path) -> dict[str, Any]:
    try:
        return read_config(file)
    except ValueError as error:
        raise UnknownModel(str(error)) from error


def to_config(shape: ModelShape) -> dict[str, Any]:
    """Return a `config.json` of a shape, with values that decide no size as they usually are."""
    family = next(name for name, traits in _FAMILIES.items() if traits == (shape.attention_bias, shape.query_key_norm))
    not_sizes = ("attention_bias", "query_key_norm", "positions")
    sizes = {name: value for name, value in asdict(shape).items() if name not in not_sizes}
    return sizes | {
        "model_type": family,
        "architectures": [f"{family.capitalize()}ForCausalLM"],
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "max_position_embeddings": shape.positions or 32768,
    }
