"""`make install` takes the first Python 3.12 that can make a virtual environment, or says in one line how to get one.

The interpreters are scripts, which answer as those of the systems in docs/install.md, and nothing is installed.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ("bash", "sh", "make", "env", "mkdir", "cp", "chmod", "touch", "cat", "test", "echo", "true", "basename")

# A Python that makes environments with itself in them, and with a uv that does nothing.
PYTHON = """#!/bin/sh
case "$1 $2" in
"-V ") echo "Python $version.1" ;;
"-m venv") test $ensurepip = yes || exit 1; mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; echo "$0" > "$3/made-by" ;;
"-m pip") printf '#!/bin/sh\\n' > "${0%/*}/uv"; chmod +x "${0%/*}/uv" ;;
"-c "*ensurepip*) test $ensurepip$version = yes3.12 ;;
"-c "*version_info*) test $version = 3.12 ;;
esac
"""


def interpreter(path: Path, version: str = "3.12", ensurepip: bool = True) -> Path:
    """Write a Python of that version; without `ensurepip` it can't make environments, as Debian's without its -venv."""
    path.parent.mkdir(parents=True, exist_ok=True)
    settings = f"version={version}\nensurepip={'yes' if ensurepip else 'no'}\n"
    first, rest = PYTHON.split("\n", 1)
    path.write_text(f"{first}\n{settings}{rest}")
    path.chmod(0o755)
    return path


@pytest.fixture
def machine(tmp_path):
    """A machine without any Python: (its folder of programs, its home, the repository)."""
    programs, home, repository = (tmp_path / name for name in ("bin", "home", "repository"))
    for folder in (programs, home, repository):
        folder.mkdir()
    for tool in TOOLS:
        (programs / tool).symlink_to(shutil.which(tool))
    for name in ("Makefile", "pyproject.toml", "requirements-cpu.txt", "requirements-cpu.override.txt"):
        shutil.copy(ROOT / name, repository)
    return programs, home, repository


def install(machine, *arguments: str) -> subprocess.CompletedProcess:
    programs, home, repository = machine
    environment = {"PATH": str(programs), "HOME": str(home)}
    shell = f"SHELL={programs}/bash"  # the Makefile's /bin/bash is not on every machine's PATH
    command = [str(programs / "make"), shell, "install", *arguments]
    return subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, timeout=60)


def used(machine) -> Path:
    """The interpreter that the environment was made with."""
    return Path((machine[2] / ".venv" / "made-by").read_text().strip())


def ubuntu_24_04(programs: Path, home: Path) -> Path:
    interpreter(programs / "python3")
    return interpreter(programs / "python3.12")


def debian_12_with_pyenv(programs: Path, home: Path) -> Path:
    interpreter(programs / "python3", "3.11")
    interpreter(programs / "python3.11", "3.11")
    interpreter(home / ".pyenv/versions/3.11.7/bin/python3.11", "3.11")
    return interpreter(home / ".pyenv/versions/3.12.1/bin/python3.12")


def debian_13_with_uv(programs: Path, home: Path) -> Path:
    interpreter(programs / "python3", "3.13")
    found = interpreter(home / ".local/share/uv/python/cpython-3.12/bin/python3.12")
    uv = programs / "uv"
    uv.write_text(f'#!/bin/sh\ntest "$*" = "python find 3.12" && echo {found}\n')
    uv.chmod(0o755)
    return found


def pyenvs_shim_without_a_version(programs: Path, home: Path) -> Path:
    """pyenv puts a python3.12 on the PATH that refuses where no such version is chosen."""
    shim = programs / "python3.12"
    shim.write_text("#!/bin/sh\necho 'pyenv: python3.12: command not found' >&2\nexit 127\n")
    shim.chmod(0o755)
    return interpreter(home / ".pyenv/versions/3.12.9/bin/python3.12")


SYSTEMS = (ubuntu_24_04, debian_12_with_pyenv, debian_13_with_uv, pyenvs_shim_without_a_version)


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.__name__)
def test_the_systems_python_3_12_is_found(machine, system):
    expected = system(*machine[:2])
    done = install(machine)
    assert done.returncode == 0, done.stderr
    assert used(machine) == expected
    assert (machine[2] / ".venv" / ".installed").exists()


def debian_12(programs: Path, home: Path) -> None:
    interpreter(programs / "python3", "3.11")


def debian_13(programs: Path, home: Path) -> None:
    interpreter(programs / "python3", "3.13")
    interpreter(programs / "python3.13", "3.13")


def ubuntu_24_04_without_venv(programs: Path, home: Path) -> None:
    interpreter(programs / "python3.12", ensurepip=False)


def nothing(programs: Path, home: Path) -> None:
    """No Python at all."""


@pytest.mark.parametrize("system", [debian_12, debian_13, ubuntu_24_04_without_venv, nothing], ids=lambda s: s.__name__)
def test_a_machine_without_one_is_told_what_to_do(machine, system):
    system(*machine[:2])
    done = install(machine)
    assert done.returncode == 2
    (line,) = [one for one in done.stderr.splitlines() if not one.startswith("make: ***")]
    assert line.startswith(
        "make: Python 3.12 with venv not found; install it (Ubuntu 24.04: apt install python3.12-venv"
    )
    assert "pyenv" in line and "uv python install 3.12" in line and "PYTHON=" in line
    assert not (machine[2] / ".venv").exists()


def test_the_chosen_interpreter_is_taken(machine):
    ubuntu_24_04(*machine[:2])
    chosen = interpreter(machine[1] / "mine" / "python")
    assert install(machine, f"PYTHON={chosen}").returncode == 0
    assert used(machine) == chosen


@pytest.mark.parametrize("existing", [True, False])
def test_another_version_is_refused(machine, existing):
    """Chosen by the user, or of an environment that is there."""
    other = interpreter(machine[1] / "mine" / "python", "3.13")
    if existing:
        interpreter(machine[0] / "python3.12")
        interpreter(machine[2] / ".venv" / "bin" / "python", "3.13")
    done = install(machine, *([] if existing else [f"PYTHON={other}"]))
    assert done.returncode == 2
    (line,) = [one for one in done.stderr.splitlines() if not one.startswith("make: ***")]
    assert line == "make: .venv has Python 3.13.1, the stack needs 3.12; remove .venv"
    assert not (machine[2] / ".venv" / ".installed").exists()
