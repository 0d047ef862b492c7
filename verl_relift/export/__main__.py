"""Export a training checkpoint as a Hugging Face folder: safetensors, tokenizer, generation config, model card.

    python -m verl_relift.export --checkpoint RUN/global_step_N --output DIR [--dtype bfloat16] [--evaluation DIR ...]

The folder appears only if the weights are complete and finite, the tokenizer fits the model, and transformers computes
the checkpoint's log-probabilities from it. --push uploads it with your own token. Details: docs/evaluate.md.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ..usage import argument_parser
from .errors import ExportError

_GIGABYTE = 10**9


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command.

    Args:
        arguments: command-line arguments; None reads `sys.argv`.

    Raises:
        SystemExit: with status 2, after one line on stderr, if an argument or the checkpoint is invalid.
    """
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
        f"log-probabilities of {exported.agreement.tokens} tokens differ from the checkpoint's by at most "
        f"{exported.agreement.largest:.1e}, on average by {exported.agreement.mean:.1e}"
    )
    if options.push:
        print(push(options.output, options.push, private=not options.public))


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser("verl_relift.export", __doc__, page="docs/evaluate.md")
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, help="RUN/global_step_N, or RUN for its latest checkpoint")
    add("--output", type=Path, required=True, help="output folder")
    add("--dtype", choices=["float32", "bfloat16", "float16"], help="type of the weights; default: the checkpoint's")
    add("--max-shard-gb", type=float, default=2.0, help="size limit of a weights file, GB; default %(default)s")
    add("--chat-template", type=Path, help="file with a chat template to use instead of the tokenizer's")
    add("--evaluation", nargs="+", default=[], metavar="[LABEL=]DIR", help="evaluations to show in the model card")
    add("--overwrite", action="store_true", help="replace the output folder if it exists")
    add("--push", metavar="USER/NAME", help="upload the folder to the Hugging Face hub with your own token")
    add("--public", action="store_true", help="make the uploaded model public; default: private")
    add("--verbose", action="store_true", help="show transformers' messages")
    return parser


if __name__ == "__main__":
    main()
