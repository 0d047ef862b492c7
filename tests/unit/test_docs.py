"""What the documentation names exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MADE_BY_COMMANDS = ("outputs/", "data/gsm8k/", "model", "report.html")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_linked_file_exists(page):
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_module_in_a_command_exists(page):
    modules = set(re.findall(r"python -m ((?:verl_relift|data_preprocess|benchmarks)[\w.]*\w)", page.read_text()))
    missing = []
    for module in modules:
        path = ROOT / module.replace(".", "/")
        if not path.with_suffix(".py").exists() and not (path / "__main__.py").exists():
            missing.append(module)
    assert missing == []


def test_every_make_target_in_the_documentation_exists():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for page in PAGES for name in re.findall(r"`make ([\w-]+)", page.read_text())}
    assert named - targets == set()


TOP_LEVEL = {path.name for path in ROOT.iterdir()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_in_the_text_exists(page):
    """What stands in backticks or a command and begins with a folder or file of the repository."""
    text = page.read_text()
    quoted = [word for span in re.findall(r"`([^`\n]+)`", text) for word in span.split()]
    commands = [word for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for word in block.split()]
    missing = []
    for word in dict.fromkeys([*quoted, *commands]):
        path = word.split("=")[-1].strip("`'\",;:()").removeprefix("./")
        first = path.split("/")[0]
        if "/" not in path or "..." in path or first not in TOP_LEVEL or path.startswith(MADE_BY_COMMANDS):
            continue
        if not any(ROOT.glob(re.sub(r"NAME|<[^>]*>", "*", path.rstrip("/")))):
            missing.append(path)
    assert missing == []
