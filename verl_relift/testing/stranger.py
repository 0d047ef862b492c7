"""Python code as another, unprivileged user of the machine: for tests that attack a run."""

import os
import subprocess
import sys
import textwrap

import pytest

USER = 65534  # nobody

needs_stranger = pytest.mark.skipif(os.getuid() != 0, reason="only root can run code as another user")

# The interpreter may be where only root can read, so what the code imports is imported before root's rights go.
_PROGRAM = """
import os, sys, traceback
code, *modules = sys.argv[1:]
names = {module: __import__(module) for module in modules}
os.setgroups([])
os.setresgid(USER, USER, USER)
os.setresuid(USER, USER, USER)
try:
    exec(code, names)
except BaseException:
    traceback.print_exc()
"""


def as_stranger(code: str, *modules: str, seconds: float = 60.0) -> str:
    """Run Python code as another user.

    Args:
        code: may be indented. It has `os` and `socket` and imports nothing.
        modules: what else it has.
        seconds: limit of time.

    Returns:
        What it wrote, to stdout and to stderr.
    """
    program = _PROGRAM.replace("USER", str(USER))
    result = subprocess.run(
        [sys.executable, "-c", program, textwrap.dedent(code), "os", "socket", *modules],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
        cwd="/tmp",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
    )
    return result.stdout
