"""Run the kit: `python -m tests.gpu run|bundle|install ...`

run      run the steps that have no result yet, one after the other, each in a process of its own
bundle   download the GPU stack as wheels and split it into parts that can be carried to a machine without a network
install  join the parts, compare them with the manifest and install them there
"""

import argparse
import sys
from pathlib import Path

from . import bundle, runner
from .steps import STEPS


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)

    run = commands.add_parser("run", help="run the steps")
    run.add_argument(
        "--output", type=Path, default=Path("outputs/gpu"), help="folder of the results; default %(default)s"
    )
    run.add_argument("--copy", type=Path, help="folder that gets the three summary files after every step")
    run.add_argument("--seconds", type=float, default=1800.0, help="time of this command; default %(default)s")
    run.add_argument("--device", choices=("cuda", "cpu"), help="default: what is there")
    run.add_argument("--steps", nargs="+", choices=[step.name for step in STEPS], help="only these, and again")
    run.add_argument("--model", type=Path, help="folder of Qwen2.5-Coder-0.5B for the last step")
    run.add_argument("--gsm8k", type=Path, default=Path("tests/data/gsm8k"), help="folder with train.jsonl, test.jsonl")

    make = commands.add_parser("bundle", help="download and split")
    make.add_argument(
        "--output", type=Path, default=Path("outputs/gpu-kit"), help="folder of the parts; default %(default)s"
    )
    make.add_argument("--part", type=int, default=56, metavar="MIB", help="size of a part; default %(default)s")
    make.add_argument("--with", dest="groups", nargs="*", default=[], choices=sorted(bundle.OPTIONAL), help="and these")
    make.add_argument("--wheels", type=Path, help="folder with wheels that no registry has: transformer_engine_torch")
    make.add_argument("--data", type=Path, help="folder with all of GSM8K, to carry with the model")

    install = commands.add_parser("install", help="join, verify and install")
    install.add_argument("parts", type=Path, help="folder with the parts and the manifest")
    install.add_argument("--target", type=Path, default=Path("/tmp/kit"), help="default %(default)s")
    return parser


def main() -> int:
    """Run the command line.

    Returns:
        The exit status: 0 for success; of `run`, 1 if a step failed and 75 if steps are left for the next command.
    """
    arguments = _parser().parse_args()
    try:
        if arguments.command == "bundle":
            bundle.make(arguments.output, arguments.part << 20, arguments.groups, arguments.wheels, arguments.data)
        elif arguments.command == "install":
            bundle.install(arguments.parts, arguments.target)
        else:
            return runner.run(
                runner.Request(
                    arguments.output.resolve(),
                    arguments.copy,
                    arguments.seconds,
                    arguments.device or runner.device(),
                    arguments.steps,
                    arguments.model,
                    arguments.gsm8k.resolve(),
                )
            )
    except bundle.BundleError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
