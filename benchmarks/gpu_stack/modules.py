"""Import every module of this repository's packages, and print those that can't be: one line of JSON."""

import importlib
import json
import pkgutil
import sys


def main() -> None:
    """Import the modules of the packages that the command line names, in one process."""
    failed, names = {}, []
    for package in sys.argv[1:]:
        names += [package, *(one.name for one in pkgutil.walk_packages([package], f"{package}."))]
    for name in names:
        try:
            importlib.import_module(name)
        except BaseException as error:  # verl's plugin ends the process
            failed[name] = f"{type(error).__name__}: {error}"
    print(json.dumps({"modules": len(names), "failed": failed}))


if __name__ == "__main__":
    main()
