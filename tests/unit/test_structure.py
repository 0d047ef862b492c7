"""The structure of the source: who may import whom, how long a function may be, and where a method may be named.

A room is a module or a package directly below `verl_relift`.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from verl_relift.methods.registry import METHODS

ROOT = Path(__file__).parents[2]

# From top to bottom. A room imports only rooms of lower levels, so rooms of one level don't import each other.
LEVELS = (
    ("pretrained",),
    ("train", "quickstart", "__main__"),
    ("preflight",),
    ("trainer",),
    ("verl_trainer",),
    ("evaluate", "report", "export", "grade"),
    ("plan",),
    ("trace",),
    ("stages",),
    ("checks", "model_support", "usage"),
    ("actor", "rollout", "engines"),
    ("methods",),
    ("demonstrations",),
    ("data",),
    ("rewards",),
    ("consistency",),
    ("schema",),
    ("types", "settings"),
    ("upstream",),
    ("run",),
)
# What tests and benchmarks share: it may import every room, and no room imports it.
SHARED = "testing"
# The same for whole packages: each imports only those after it.
PACKAGES = ("tests", "benchmarks", "examples", "data_preprocess", "verl_relift")

# These rooms must be importable in milliseconds and testable without an engine.
PURE = (
    "methods",
    "demonstrations",
    "rewards",
    "data",
    "settings",
    "types",
    "schema",
    "consistency",
    "checks",
    "model_support",
    "usage",
    "stages",
    "plan",
)
ENGINES = {"torch", "verl", "ray", "vllm", "megatron", "mbridge"}
MAX_LINES = 60


@dataclass(frozen=True)
class Import:
    """One imported name."""

    path: Path  # the importing file, relative to the repository
    line: int
    name: str  # absolute: module, or module.attribute for `from module import attribute`
    in_function: bool

    def __str__(self) -> str:
        return f"{self.path}:{self.line} imports {self.name}"


def files(package: str) -> list[Path]:
    """The Python files of a top-level package, relative to the repository."""
    return sorted(path.relative_to(ROOT) for path in (ROOT / package).rglob("*.py"))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(), str(path))


@cache
def imports(path: Path) -> list[Import]:
    """All imports of a file, also those inside functions, without those for type checkers only."""
    found: list[Import] = []

    def visit(node: ast.AST, in_function: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.Import):
                found.extend(Import(path, child.lineno, alias.name, in_function) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                # The package of `from . import x` is the file's folder, one level up for each further dot.
                base = list(path.parts[:-1])[: len(path.parts) - child.level] if child.level else []
                module = ".".join([*base, *([child.module] if child.module else [])])
                found.extend(Import(path, child.lineno, f"{module}.{alias.name}", in_function) for alias in child.names)
            visit(child, in_function or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))

    visit(tree(path), False)
    return found


def room_of(path: Path) -> str:
    """The room of a file of verl_relift; an empty string for the package's own `__init__.py`."""
    name = path.parts[1].removesuffix(".py")
    return "" if name == "__init__" else name


def imported_room(name: str) -> str | None:
    """The room of an imported name; None if it is not in verl_relift."""
    package, *rest = name.split(".")
    return rest[0] if package == "verl_relift" and rest else None


def level(room: str) -> int:
    """The number of a room's level from the top; -1 for one that has none, so that nothing may import it."""
    return next((number for number, rooms in enumerate(LEVELS) if room in rooms), -1)


def test_every_room_has_its_level():
    # config/ holds no code
    rooms = {room_of(path) for path in files("verl_relift")} - {"", "config"}
    assert rooms == {room for rooms in LEVELS for room in rooms} | {SHARED}


def test_no_room_imports_a_room_above_it_or_beside_it():
    wrong = []
    for path in files("verl_relift"):
        room = room_of(path)
        for imported in imports(path):
            target = imported_room(imported.name)
            if target in (None, room) or room == SHARED:
                continue
            if room == "" or target == SHARED or level(target) <= level(room):
                wrong.append(str(imported))
    assert wrong == []


def test_packages_import_only_those_after_them():
    wrong = []
    for number, package in enumerate(PACKAGES):
        for path in files(package):
            wrong += [str(found) for found in imports(path) if found.name.split(".")[0] in PACKAGES[:number]]
    assert wrong == []


def test_only_the_tests_of_benchmarks_import_benchmarks():
    own = Path("tests/unit/benchmarks")
    others = [path for path in files("tests") if own not in path.parents]
    assert [str(found) for path in others for found in imports(path) if found.name.split(".")[0] == "benchmarks"] == []


def test_data_preprocess_imports_only_pure_rooms():
    rooms = {imported_room(found.name): str(found) for path in files("data_preprocess") for found in imports(path)}
    assert {room: where for room, where in rooms.items() if room is not None and room not in PURE} == {}


def test_pure_rooms_import_no_engine():
    paths = [path for path in files("verl_relift") if room_of(path) in PURE]
    wrong = []
    for found in (found for path in paths for found in imports(path)):
        package = found.name.split(".")[0]
        inside = found.in_function and package == "torch" and not found.name.startswith("torch.distributed")
        if package in ENGINES and not inside:
            wrong.append(str(found))
    assert wrong == []


IMPORT_ALL = """
import importlib, sys
for module in sys.argv[1:]:
    importlib.import_module(module)
print(*sorted({name.split(".")[0] for name in sys.modules}))
"""


def test_no_engine_is_loaded_with_the_pure_rooms():
    """Neither directly nor by an import of another package."""
    paths = [path.with_suffix("") for path in files("verl_relift") if room_of(path) in PURE]
    modules = [".".join(path.parts).removesuffix(".__init__") for path in paths if path.name != "__main__"]
    command = [sys.executable, "-c", IMPORT_ALL, *modules]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert ENGINES & set(result.stdout.split()) == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_no_function_is_longer_than_a_screen(package):
    wrong = []
    for path in files(package):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = node.end_lineno - node.lineno + 1
                if lines > MAX_LINES:
                    wrong.append(f"{path}:{node.lineno} {node.name} has {lines} lines")
    assert wrong == []


# "relift" and "sft" are also the names of this project, of a group of settings and of a kind of update; "factorial" is
# also that of a number.
AMBIGUOUS = {"relift", "sft", "factorial"}
NAMED = re.compile(rf"\b({'|'.join(sorted({*METHODS, 'luffy'} - AMBIGUOUS))})\b|\bmethod=\w")
BESIDE_METHODS = [
    path
    for path in (*files("verl_relift"), *files("data_preprocess"), *files("examples"))
    if path.parts[:2] != ("verl_relift", "methods")
]


def literals(path: Path) -> Iterator[ast.Constant]:
    """The string literals of a file without its docstrings."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node


def test_no_module_beside_methods_names_one():
    wrong = []
    for path in BESIDE_METHODS:
        lines = (ROOT / path).read_text().splitlines()
        for literal in literals(path):
            # verl's estimator of advantages has the name of a method, too.
            if NAMED.search(literal.value) and "adv_estimator" not in lines[literal.lineno - 1]:
                wrong.append(f"{path}:{literal.lineno} {literal.value!r}")
    assert wrong == []


def test_no_configuration_beside_the_methods_own_names_one():
    wrong = []
    for path in sorted((ROOT / "verl_relift" / "config").rglob("*.yaml")):
        if path.parent.name == "method":
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            setting = line.split("#")[0]
            if NAMED.search(setting) and "adv_estimator" not in setting:
                wrong.append(f"{path.relative_to(ROOT)}:{number} {setting}")
    assert wrong == []


def test_no_module_beside_methods_imports_one_or_asks_for_its_class():
    wrong = []
    for path in BESIDE_METHODS:
        of_methods = {}
        for found in imports(path):
            package, room, *rest = [*found.name.split("."), "", ""][:4]
            if (package, room) != ("verl_relift", "methods"):
                continue
            of_methods[found.name.split(".")[-1]] = found
            if rest[0] in METHODS:
                wrong.append(str(found))
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.startswith("is"):
                names = {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
                if node.func.id in ("isinstance", "issubclass") and names & of_methods.keys():
                    wrong.append(f"{path}:{node.lineno} {ast.unparse(node)}")
    assert wrong == []


def test_every_method_has_its_configuration_and_recipe():
    assert {path.stem for path in (ROOT / "verl_relift" / "config" / "method").glob("*.yaml")} == set(METHODS)
    assert {path.parent.name for path in ROOT.glob("recipe/*/run.sh")} == set(METHODS)
    assert {path.parent.name for path in ROOT.glob("recipe/*/README.md")} == set(METHODS)
