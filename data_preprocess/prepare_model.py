"""A copy of a base model that is ready for long reasoning: more positions, another rope base, a chat template.

    hf download Qwen/Qwen2.5-Math-7B --local-dir Qwen2.5-Math-7B
    python -m data_preprocess.prepare_model --model Qwen2.5-Math-7B --rope-theta 40000 --max-positions 16384
    --chat-template think --output DIR

The chat template is plain text (`User:`, `Assistant:`, and turns end with the end-of-sequence token), so it needs no
special tokens and fits any base model. It begins with the beginning-of-sequence token if the model's tokenizer puts
one in front of a text: nothing else does when chats are tokenized. `none`, `boxed` and `think` choose the system prompt
for chats that have none; a file name selects your own template. The weights are copied or, with --link, linked. The
original model is unchanged. The copy is loaded, and its vocabulary is checked.
"""

import json
import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from verl_relift.data import weight_files
from verl_relift.data.errors import DataError
from verl_relift.usage import argument_parser

from .cli import positive
from .template import Template, system_prompt
from .vocabulary import ModelError, check_vocabulary, read_json

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")


def chat_template(choice: str, begins: bool) -> str:
    """Return a chat template by the name of its system prompt, or from a file.

    Args:
        choice: the name or the file.
        begins: whether the named templates write the beginning-of-sequence token.

    Raises:
        ModelError: the choice is neither a name nor a file.
    """
    if choice not in list(Template):
        path = Path(choice)
        if not path.is_file():
            raise ModelError(f"--chat-template {choice}: no such file; give one of {', '.join(Template)} or a file")
        return path.read_text(encoding="utf-8")
    text = (Path(__file__).parent / "templates" / "chat.jinja").read_text(encoding="utf-8")
    text = text.replace("@BEGIN@", "bos_token" if begins else '""')
    return text.replace("@SYSTEM@", json.dumps(system_prompt(Template(choice)) or ""))


def writes_beginning(tokenizer: Any) -> bool:
    """Return whether a tokenizer puts a beginning-of-sequence token in front of a text, as in pretraining."""
    return tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]


def note_on_beginning(folder: Path) -> str | None:
    """Return a line about a chat template without the beginning-of-sequence token that its tokenizer writes, or None.

    Args:
        folder: a model with a chat template.
    """
    from verl_relift.data.chat import prompt_ids
    from verl_relift.data.tokens import load_tokenizer

    tokenizer = load_tokenizer(str(folder))
    if tokenizer.chat_template is None or not writes_beginning(tokenizer):
        return None
    if prompt_ids(tokenizer, [{"role": "user", "content": "a"}])[0] == tokenizer.bos_token_id:
        return None
    return (
        f"note: {folder}: the tokenizer puts {tokenizer.bos_token} in front of a text, but the chat template does not "
        "write it, so the model is trained and evaluated without; begin the template with {{- bos_token -}} to write it"
    )


def edit_config(config: dict[str, Any], rope_theta: float | None, max_positions: int | None) -> dict[str, Any]:
    """Return the configuration with another rope base and length, wherever this version of transformers keeps them.

    Args:
        config: the contents of config.json.
        rope_theta: the base of the rotary positions; None keeps it.
        max_positions: the length in tokens; None keeps it.

    Raises:
        ModelError: the model has no rope, or scales it by a rule that a new base would contradict.
    """
    config = dict(config)
    if rope_theta is not None:
        parameters = config.get("rope_parameters")
        scaling = config.get("rope_scaling") or parameters or {}
        kind = scaling.get("rope_type", scaling.get("type", "default"))
        if kind != "default":
            raise ModelError(
                f"config.json: rope is scaled ({kind}); change --max-positions alone, or remove rope_scaling"
            )
        if not isinstance(parameters, dict) and "rope_theta" not in config:
            raise ModelError(
                "config.json: neither rope_theta nor rope_parameters; leave out --rope-theta for this model"
            )
        if isinstance(parameters, dict):
            config["rope_parameters"] = parameters | {"rope_theta": rope_theta}
        if "rope_theta" in config:
            config["rope_theta"] = rope_theta
    if max_positions is not None:
        if "max_position_embeddings" not in config:
            raise ModelError("config.json: no max_position_embeddings; give a model with rotary positions")
        config["max_position_embeddings"] = max_positions
    return config


def prepare(
    model: str | Path,
    output: str | Path,
    *,
    rope_theta: float | None = None,
    max_positions: int | None = None,
    template: str | None = None,
    link: bool = False,
) -> Path:
    """Make the copy, which appears under its name when it is complete and has been loaded and checked.

    Args:
        model: folder in Hugging Face's format.
        output: a new or empty folder.
        rope_theta: the base of the rotary positions; None keeps it.
        max_positions: the length of prompt and response together, in tokens; None keeps it.
        template: the name of a system prompt, or a file with a chat template; None keeps the model's.
        link: whether to link the weights instead of copying them.

    Returns:
        The output folder.

    Raises:
        ModelError: the model folder is incomplete or contradicts itself, or the output exists.
        DataError: the tokenizer cannot be loaded.
    """
    source, output = Path(model), Path(output)
    if not source.is_dir():
        raise ModelError(f"--model {model}: no such folder; {_download(str(model))}")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ModelError(f"--output {output}: exists and is not empty; choose another folder")
    config = edit_config(read_json(source / "config.json"), rope_theta, max_positions)
    _require_readable(source)
    for file in sorted(source.glob("*.safetensors")):
        if problem := weight_files.fault(file):
            raise ModelError(f"{file}: {problem}")
    partial = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    try:
        partial.mkdir(parents=True)
        for path in sorted(source.iterdir()):
            if path.is_file() and link and path.suffix in WEIGHTS:
                (partial / path.name).symlink_to(path.resolve())
            elif path.is_file():
                shutil.copy2(path, partial / path.name)
        _write_json(partial / "config.json", config)
        _edit_tokenizer(partial, template, max_positions)
        _verify(partial, config, template)
        if output.exists():
            output.rmdir()
        os.replace(partial, output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return output


def _require_readable(source: Path) -> None:
    """Check that transformers reads a model's configuration and tokenizer, before anything is copied.

    Raises:
        ModelError: it can't read the configuration.
        DataError: it can't read the tokenizer.
    """
    from transformers import AutoConfig

    from verl_relift.data.tokens import load_tokenizer

    try:
        AutoConfig.from_pretrained(source)
    except Exception as error:  # its checks raise errors of several libraries
        why, take = " ".join(str(error).split()), "take the file from the model's source"
        raise ModelError(f"{source / 'config.json'}: transformers cannot read it ({why}); {take}") from error
    load_tokenizer(str(source))


def _download(model: str) -> str:
    """Return how a model gets there: by its hub id, or by the name that a folder of it usually has."""
    hub_id = model if re.fullmatch(r"[\w.-]+/[\w.-]+", model) else f"OWNER/{Path(model).name}"
    folder = hub_id.partition("/")[2]
    return f"download it and give the folder: hf download {hub_id} --local-dir {folder}, then --model {folder}"


def _edit_tokenizer(folder: Path, template: str | None, max_positions: int | None) -> None:
    from verl_relift.data.tokens import load_tokenizer

    path = folder / "tokenizer_config.json"
    settings = read_json(path) if path.is_file() else {}
    if template is not None:
        settings["chat_template"] = chat_template(template, writes_beginning(load_tokenizer(str(folder))))
        (folder / "chat_template.jinja").unlink(missing_ok=True)  # newer versions prefer it to the setting
    if max_positions is not None:
        settings["model_max_length"] = max_positions
    _write_json(path, settings)


def _verify(folder: Path, config: dict[str, Any], template: str | None) -> None:
    """Load the copy as training will, and render a chat."""
    from transformers import AutoConfig

    from verl_relift.data.tokens import load_tokenizer

    loaded = AutoConfig.from_pretrained(folder)
    if loaded.max_position_embeddings != config.get("max_position_embeddings", loaded.max_position_embeddings):
        raise ModelError(
            f"{folder}: transformers reads {loaded.max_position_embeddings} positions; update transformers"
        )
    tokenizer = load_tokenizer(str(folder))
    check_vocabulary(folder, tokenizer)
    if template is not None:
        question = "What is 7*2+3?"
        rendered = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
        )
        if question not in rendered:
            raise ModelError(f"--chat-template {template}: the rendered chat omits the question; correct the template")


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = argument_parser("data_preprocess.prepare_model", __doc__, page="docs/data.md")
    parser.add_argument(
        "--model",
        required=True,
        help="folder in Hugging Face's format, as `hf download HUB_ID --local-dir DIR` makes it",
    )
    parser.add_argument("--output", required=True, help="a new folder")
    parser.add_argument("--rope-theta", type=float, help="base of the rotary positions, e.g. 40000")
    parser.add_argument("--max-positions", type=positive, help="prompt and response together, e.g. 16384")
    parser.add_argument("--chat-template", metavar="NAME", help="none, boxed, think or a file")
    parser.add_argument("--link", action="store_true", help="link the weights instead of copying them")
    flags = parser.parse_args(arguments)
    try:
        folder = prepare(
            flags.model,
            flags.output,
            rope_theta=flags.rope_theta,
            max_positions=flags.max_positions,
            template=flags.chat_template,
            link=flags.link,
        )
    except (ModelError, DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    vocabulary = check_vocabulary(folder)
    print(f"{folder}: {vocabulary.tokens:,} token ids, vocabulary {vocabulary.rows:,}; tokenizer and model agree")
    note = note_on_beginning(folder)
    if note is not None:
        print(note, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
