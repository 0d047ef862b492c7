"""List the commands: `python -m verl_relift`."""

from .usage import commands

if __name__ == "__main__":
    print(commands())
