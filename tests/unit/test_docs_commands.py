"""Every command in the documentation is one that runs: known, with flags that exist, in one form."""

import json
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from verl_relift.usage import COMMANDS, commands

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("recipe/**/*.md")),
]
# What a line of a block may begin with, besides python and make.
OTHERS = {
    "source", "tensorboard", "bash", "sbatch", "scancel", "squeue", "srun", "docker", "apptainer", "singularity",
    "enroot", "cd", "git", "tar", "ssh", "scp", "tail", "grep", "vllm",
    "export", "umask", "kill", "pip", "uv", "module", "nvidia-smi", "cp", "rsync",
    "mkdir", "echo", "apt", "ls", "hf", "curl", "unset", "debootstrap", "buildah",
    "openssl", "python3",
}  # fmt: skip
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def commands_of(page: Path) -> list[list[str]]:
    """The commands of a page's blocks, as words, without leading variables."""
    found = []
    for block in re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"[A-Za-z_]+=.*", words[0]) and "$(" not in words[0]:
                words = words[1:]
            if words:
                found.append([words[0].partition("$(")[2] or words[0], *words[1:]])
    return found


@cache
def help_of(module: str) -> str:
    command = [sys.executable, "-m", module, "--help"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr[-500:]
    return ended.stdout


@each_page
def test_every_line_begins_with_a_command_that_is_known(page):
    unknown = [
        words[0]
        for words in commands_of(page)
        if words[0] not in ("python", "make") and words[0] not in OTHERS and not (ROOT / words[0]).exists()
        and not words[0].startswith("recipe/<")
    ]  # fmt: skip
    assert unknown == []


@each_page
def test_there_is_one_form_of_command(page):
    """That of the activated environment."""
    text = page.read_text()
    # The kit for the first GPU starts where there is no environment yet.
    assert re.findall(r"\.venv/bin/python\S*|python3 -m (?!tests\.gpu)\S+", text) == []
    assert [words for words in commands_of(page) if words[0] == "python" and words[1] not in ("-m", "-c")
            and not words[1].endswith(".py")] == []  # fmt: skip


@each_page
def test_every_flag_of_a_command_exists(page):
    wrong = []
    for words in commands_of(page):
        if words[:2] != ["python", "-m"] or not words[2].startswith(("verl_relift", "data_preprocess")):
            continue
        known = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", help_of(words[2])))
        given = {word.split("=")[0].strip("[]") for word in words[3:] if word.lstrip("[").startswith("--")}
        wrong += [f"{words[2]} {flag}" for flag in given - known - {"--help", "--config-dir", "--trace"}]
    assert wrong == []


PLANS = sorted({
    shlex.join(words[3:]) for page in PAGES for words in commands_of(page)
    if words[:3] == ["python", "-m", "verl_relift.plan"] and "key=value" not in words and "--trace" not in words
})  # fmt: skip


@pytest.mark.parametrize("arguments", PLANS)
def test_every_plan_answers(arguments, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    command = [sys.executable, "-m", "verl_relift.plan", "--json", *shlex.split(arguments)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    answer = json.loads(ended.stdout)
    plans = answer if "--layouts" in command else [answer]
    assert ended.returncode in (0, 1) and all(isinstance(plan["fits"], bool) for plan in plans), ended.stderr
    assert ended.returncode == 0 or "positions" not in ended.stdout


def test_the_list_of_commands_names_what_exists_with_a_help_that_fits_on_a_screen():
    text = commands()
    for module in COMMANDS:
        assert module in text
        lines = help_of(module).splitlines()
        assert lines[0].startswith(f"usage: python -m {module} ") and len(lines) <= 36, module
    ended = subprocess.run([sys.executable, "-m", "verl_relift"], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0 and ended.stdout.strip() == text.strip()


# ---- what messages say -----------------------------------------------------------------------------------------------


def test_the_lines_of_the_page_on_troubles_are_those_that_the_program_writes():
    """Each text in backticks of a first column, up to a placeholder, is in the source or comes from elsewhere."""
    elsewhere = {
        "The current node timed out during startup",
        "SIGKILL",
        "OOM",
        "CUDA out of memory",
        "update_actor",
        "No space left on device",
        "GiB",
        "Stopped",
    }
    source = "\n".join(path.read_text() for path in (ROOT / "verl_relift").rglob("*.py"))
    source = re.sub(r'"\s*\n\s*f?"', "", source)  # texts that go over several lines
    source = re.sub(r"\{[^{}]*\}", "N", source)
    page = (ROOT / "docs/troubleshooting.md").read_text()
    tables = page[: page.index("## It runs and does not learn")]
    missing = []
    for cell in re.findall(r"^\| (?!line|---)([^|]+) \|", tables, re.MULTILINE):
        for quoted in re.findall(r"`([^`]+)`", cell):
            parts = [part.strip(" :") for part in quoted.split("...") if part.strip(" :")]
            missing += [part for part in parts if part not in source and part not in elsewhere]
    assert missing == []


LOG = """\
==== 2026-11-27 01:20:23, process 22352
/venv/verl/workers/engine/__init__.py:32: UserWarning: torchtitan engine is not available: ModuleNotFoundError("No module named 'torchtitan'")
  warnings.warn(f"torchtitan engine is not available: {e!r}", stacklevel=1)
[36m(WorkerDict pid=1)[0m /venv/verl/workers/engine/__init__.py:41: UserWarning: veomni engine is not available: ModuleNotFoundError("No module named 'veomni'")
ValueError: of the first start
==== 2026-11-27 01:30:23, process 22353
/venv/verl/workers/engine/__init__.py:50: UserWarning: automodel engine is not available: ModuleNotFoundError("No module named 'nemo_automodel'")
INFO 11-27 01:20:42 [importing.py:46] Triton is installed but 0 active driver(s) found. Disabling Triton to prevent runtime errors.
WARNING 11-27 01:20:42 error_count of the last step: 0
[36m(WorkerDict pid=1)[0m torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.
ray.exceptions.RayTaskError(OutOfMemoryError): [36mray::WorkerDict.update_actor()[0m (pid=1)
training failed: CUDA out of memory in update_actor
"""  # noqa: E501


def test_the_search_of_the_page_on_troubles_finds_the_first_error_of_the_last_start(tmp_path):
    [command] = re.findall(r"```bash\n(grep .*)\n```", (ROOT / "docs/troubleshooting.md").read_text())
    log = tmp_path / "outputs/mine/relift/logs/train.log"
    log.parent.mkdir(parents=True)
    log.write_text(LOG)
    found = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True).stdout.splitlines()
    assert [line.split(":")[0] for line in found] == ["1", "5", "6", "10", "11"]
    assert "torch.OutOfMemoryError" in found[3]


# ---- metrics ---------------------------------------------------------------------------------------------------------


def documented() -> re.Pattern:
    """Matches what docs/metrics.md names; `<...>` stands for a name, `/max` behind `a/mean` for `a/max`."""
    names = []
    for cell in re.findall(r"^\| (`[^|]+) \|", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE):
        last = ""
        for name in re.findall(r"`([^`]+)`", cell):
            last = last.rpartition("/")[0] + name if name.startswith("/") else name
            names.append(last)
    return re.compile("|".join(re.sub(r"<[^>]*>", r"[^ ]+", re.escape(name).replace(r"\<", "<")) for name in names))


def test_every_metric_that_this_program_names_is_on_its_page():
    pattern = documented()
    found = set()
    for path in (ROOT / "verl_relift").rglob("*.py"):
        if path.parts[-2] in ("report", "quickstart", "export"):
            continue
        for text in re.findall(r'"((?:relift|method|training|actor)/[\w/{}.]+)"', path.read_text()):
            found.add(re.sub(r"_\{[^}]*\}", "_loss", re.sub(r"/\{[^}]*\}", "/x", text)))
    found -= {name for name in found if name.endswith(("/", "actor/x", "training/x")) or name.startswith("actor/model")}
    assert len(found) > 20
    assert {name for name in found if not pattern.fullmatch(name)} == set()


def test_the_metrics_of_a_run_are_on_their_page():
    """Those of tests/data/metrics.txt: names from real runs."""
    names = (ROOT / "tests/data/metrics.txt").read_text().split()
    pattern = documented()
    assert [name for name in names if not pattern.fullmatch(name)] == []
