"""What the documentation names exists, and its tables of settings agree with the configuration."""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from verl_relift.methods import METHODS
from verl_relift.report.timing import STAGES
from verl_relift.run.composition import Arguments, compose_config
from verl_relift.stages import stage_arguments

ROOT = Path(__file__).parents[2]
PATCHES = ROOT / "verl_relift/upstream/README.md"
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "recipe").rglob("*.md")),
    PATCHES,
]
MADE_BY_COMMANDS = ("outputs/", "data/gsm8k/", "data/mine", "model", "report.html")
TRAIN = (ROOT / "docs/train.md").read_text()
METHODS_PAGE = (ROOT / "docs/methods.md").read_text()

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@each_page
def test_every_linked_file_exists(page):
    links = [link for link in re.findall(r"\]\(([^)#]+)[)#]", page.read_text()) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


@each_page
def test_every_linked_heading_exists(page):
    missing = []
    for path, heading in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text()):
        target = page.parent / path if path else page
        if heading not in headings(target):
            missing.append(f"{path}#{heading}")
    assert missing == []


def headings(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@each_page
def test_every_module_in_a_command_exists(page):
    modules = set(re.findall(r"python -m ((?:verl_relift|data_preprocess|benchmarks)[\w.]*\w)", page.read_text()))
    missing = []
    for module in modules:
        path = ROOT / module.replace(".", "/")
        if not path.with_suffix(".py").exists() and not (path / "__main__.py").exists():
            missing.append(module)
    assert missing == []


@each_page
def test_every_training_command_composes(page):
    """And so does each of its stages."""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL)
    commands = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    for command in commands:
        if "-m verl_relift.train" not in command or "key=value" in command or "head_start" in command:
            continue
        words = [word for word in shlex.split(command, comments=True) if word != "..."]
        arguments = Arguments.parse(words[words.index("verl_relift.train") + 1 :])
        for _, stage in stage_arguments(arguments, arguments.compose("cpu")):
            stage.compose("cpu")


def test_every_make_target_in_the_documentation_exists():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for page in PAGES for name in re.findall(r"^make ([\w-]+)|`make ([\w-]+)", page.read_text(), re.M)}
    assert {one or other for one, other in named} - targets == set()


TOP_LEVEL = {path.name for path in ROOT.iterdir()}


@each_page
def test_every_path_in_the_text_exists(page):
    """What stands in backticks or a command and begins with a folder or file of the repository."""
    # Blocks of Python files are those that a reader makes.
    text = re.sub(r"```python\n# verl_relift/.*?```", "", page.read_text(), flags=re.DOTALL)
    quoted = [word for span in re.findall(r"`([^`\n]+)`", text) for word in span.split()]
    commands = [word for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for word in block.split()]
    missing = []
    for word in dict.fromkeys([*quoted, *commands]):
        path = word.split("=")[-1].strip("`'\",;:()").removeprefix("./").split(":")[0]
        first = path.split("/")[0]
        if "/" not in path or "..." in path or first not in TOP_LEVEL or path.startswith(MADE_BY_COMMANDS):
            continue
        if not any(ROOT.glob(re.sub(r"NAME|DATE-WHAT-MACHINE|<[^>]*>", "*", path.rstrip("/")))):
            missing.append(path)
    assert missing == []


# ---- settings --------------------------------------------------------------------------------------------------------


@cache
def settings() -> dict[str, set[Any]]:
    """Every key of `method` and `relift`, groups included, with the defaults that it has in some method."""
    found: dict[str, set[Any]] = {}
    for name in METHODS:
        config = compose_config("relift", None, [f"method={name}"], "cpu")
        for group in ("method", "relift"):
            for key, value in keys(group, OmegaConf.to_container(config[group], resolve=False)):
                found.setdefault(key, set()).add(value)
    return found


def keys(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the keys from `path` on with their values; a group's value is None."""
    if not isinstance(value, dict):
        yield path, str(value) if isinstance(value, list) else value
        return
    yield path, None
    for name, below in value.items():
        yield from keys(f"{path}.{name}", below)


def named_keys(text: str) -> set[str]:
    """Every `method.*` and `relift.*` that isn't a file."""
    return set(re.findall(r"(?<![\w./])(?:method|relift)\.(?!py\b|sif\b)[a-z_]+(?:\.[a-z_]+)*", text))


@each_page
def test_every_setting_that_a_page_names_exists(page):
    text = re.sub(r"```python\n.*?```", "", page.read_text(), flags=re.DOTALL)
    assert named_keys(text) - settings().keys() == set()


def test_the_pages_on_training_and_on_methods_name_every_setting():
    """Those of a teacher have a page of their own."""
    below = {key for key in settings() if not any(other.startswith(f"{key}.") for other in settings())}
    missing = below - named_keys(TRAIN + METHODS_PAGE) - {"method.name"}
    assert {key for key in missing if not key.startswith("method.teacher.")} == set()


def test_the_defaults_on_those_pages_are_those_of_the_configuration():
    rows = re.findall(r"^\| `((?:method|relift)\.[\w.]+)` \| ([^|]+) \| ", TRAIN + METHODS_PAGE, re.MULTILINE)
    assert len(rows) > 30
    wrong = [f"{key}={default}" for key, default in rows if value_of(default) not in settings()[key]]
    assert wrong == []


def value_of(text: str) -> Any:
    """A cell of a table as the configuration has it."""
    text = text.strip().strip("`")
    words = {"null": None, "true": True, "false": False}
    if text in words:
        return words[text]
    try:
        return float(text)
    except ValueError:
        return text


# ---- a step ----------------------------------------------------------------------------------------------------------

HOOKS = ("prompts", "retry", "edit", "supervised", "coefficients", "weights", "updates", "metrics", "state_dict")


@pytest.mark.parametrize("name", ["step.md", "step.svg"])
def test_the_page_on_a_step_and_its_picture_have_every_hook_and_timer(name):
    text = (ROOT / "docs" / name).read_text()
    timers = [timer.removeprefix("timing_s/") for timer in STAGES] + ["testing"]
    mark = {"step.md": "`{}", "step.svg": ">{}"}[name]
    assert [word for word in (*HOOKS, *timers) if mark.format(word) not in text] == []


def test_text_of_the_picture_is_large_enough_and_needs_nothing_from_elsewhere():
    text = (ROOT / "docs/step.svg").read_text()
    assert min(int(size) for size in re.findall(r"font-size: (\d+)px", text)) >= 12
    assert not re.search(r"<script|<image|@import|@font-face|href=|src=", text)


# ---- patches ---------------------------------------------------------------------------------------------------------


def test_the_readme_counts_the_patches_as_their_table_does():
    table = {row.split(" | ")[0]: row.split(" | ")[1] for row in re.findall(r"^\| (.*) \|$", PATCHES.read_text(), re.M)}
    [sentence] = re.findall(r"[^.\n]*attributes are replaced[^\n]*", (ROOT / "README.md").read_text())
    rows = ("in total", "on CUDA with Transformer Engine", "in judge processes, on any device")
    assert re.findall(r"\b\d+\b", sentence) == [table[row] for row in rows]
