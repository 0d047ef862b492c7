"""Turn a training checkpoint into a Hugging Face folder: safetensors, tokenizer, generation config, model card.

    python -m verl_relift.export --checkpoint RUN/global_step_N --output DIR [--dtype bfloat16] [--evaluation DIR ...]

The folder appears only when the weights are complete and finite, the tokenizer fits, and the log-probabilities that
transformers computes from it equal the checkpoint's. --push uploads it with your own token. docs/evaluate.md says more.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from .errors import ExportError

_GIGABYTE = 10**9


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; exits with 2 and one line on stderr when the input is at fault."""
    options = _parser().parse_args(arguments)
    if not options.verbose:
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        _export(options)
    except ExportError as error:
        print(f"export: {error}", file=sys.stderr)
        sys.exit(2)


def _export(options: argparse.Namespace) -> None:
    from .card import read_evaluation
    from .checkpoint import find_checkpoint
    from .folder import ExportSettings, export
    from .push import push, require_token

    checkpoint = find_checkpoint(options.checkpoint)
    evaluations = [read_evaluation(argument) for argument in options.evaluation]
    if options.push:
        require_token()
    settings = ExportSettings(
        options.dtype, int(options.max_shard_gb * _GIGABYTE), options.chat_template, options.overwrite
    )
    exported = export(checkpoint, options.output, settings, evaluations)
    size, count = sum(exported.files.values()) / 1e6, len(exported.files)
    print(f"{options.output}: step {checkpoint.step}, {exported.dtype}, {size:.1f} MB in {count} file(s)")
    print(
        f"log-probabilities against the checkpoint on {exported.agreement.tokens} tokens: "
        f"at most {exported.agreement.largest:.1e} apart, {exported.agreement.mean:.1e} on average"
    )
    if options.push:
        print(push(options.output, options.push, private=not options.public))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m verl_relift.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, help="RUN/global_step_N, or RUN for its latest checkpoint")
    add("--output", type=Path, required=True, help="folder to write")
    add("--dtype", choices=["float32", "bfloat16", "float16"], help="of the weights; default: the checkpoint's")
    add("--max-shard-gb", type=float, default=2.0, help="size of one weights file, GB; default %(default)s")
    add("--chat-template", type=Path, help="file with a chat template that replaces the tokenizer's")
    add("--evaluation", nargs="+", default=[], metavar="[LABEL=]DIR", help="outputs of evaluate, for the model card")
    add("--overwrite", action="store_true", help="replace the output folder if it is there")
    add("--push", metavar="USER/NAME", help="upload to the Hugging Face hub with your own token")
    add("--public", action="store_true", help="make the pushed model public; default: private")
    add("--verbose", action="store_true", help="show transformers' messages")
    return parser


if __name__ == "__main__":
    main()
