"""List the commands: `python -m verl_relift`."""

import sys

from .usage import COMMANDS, commands


def main() -> int:
    """Run the command.

    Returns:
        The exit status: 2 if it was given arguments, which it does not take.
    """
    given = sys.argv[1:]
    if not given or given[0] in ("-h", "--help"):
        print(commands())
        return 0
    meant = next((name for name in COMMANDS if given[0] in (name, name.rpartition(".")[2])), None)
    said = (
        f"the command is python -m {meant} ..." if meant else "this only lists the commands; see python -m verl_relift"
    )
    print(f"{' '.join(given[:2])}: {said}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
