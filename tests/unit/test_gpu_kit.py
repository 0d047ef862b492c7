"""The kit for the first GPU: what is carried arrives as it was, and steps that fail, hang or leave something behind."""

import json
import os
import subprocess
import sys
import time
import tomllib
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest

from tests.gpu import bundle, runner
from tests.gpu.report import Report
from tests.gpu.steps import STEPS

ROOT = Path(__file__).parents[2]


# ---- the bundle ------------------------------------------------------------------------------------------------------


def carried(folder: Path, sizes: list[int], part: int) -> tuple[dict, list[bytes]]:
    """Files of these sizes, cut into parts in `folder`; (their manifest, their contents)."""
    contents = [os.urandom(size) for size in sizes]
    files = []
    for i, content in enumerate(contents):
        files.append(folder / f"{i}.whl")
        files[-1].write_bytes(content)
    parts = bundle.cut(files, folder, "core", part)
    manifest = {"files": [vars(bundle._piece(f)) for f in files], "parts": [vars(p) for p in parts]}
    for file in files:
        file.unlink()
    return manifest, contents


@pytest.mark.parametrize("part", [1, 7, 10, 1000, 3 << 20])
@pytest.mark.parametrize("sizes", [[10], [3, 0, 20, 7], [10, 10, 10], [1], [0, 5]])
def test_files_arrive_as_they_were(tmp_path, sizes, part):
    manifest, contents = carried(tmp_path, sizes, part)
    assert [p["size"] for p in manifest["parts"][:-1]] == [part] * (len(manifest["parts"]) - 1)
    assert len(manifest["parts"]) == -(-sum(sizes) // part)
    names = list(bundle.join(manifest, tmp_path, tmp_path))
    assert [(tmp_path / name).read_bytes() for name in names] == contents


def test_files_of_several_blocks_arrive_as_they_were(tmp_path):
    manifest, contents = carried(tmp_path, [(3 << 20) + 5, 1 << 20, 17], (2 << 20) - 3)
    assert [(tmp_path / name).read_bytes() for name in bundle.join(manifest, tmp_path, tmp_path)] == contents


def test_a_part_that_was_damaged_or_cut_short_is_named(tmp_path):
    manifest, _ = carried(tmp_path, [30, 30], 25)
    second = tmp_path / "core-01.part"
    for damaged in (bytes(25), second.read_bytes()[:-1]):
        second.write_bytes(damaged)
        with pytest.raises(bundle.BundleError, match=r"core-01\.part: .*carry it again"):
            list(bundle.join(manifest, tmp_path, tmp_path))


def test_missing_parts_are_listed(tmp_path):
    manifest, _ = carried(tmp_path, [30, 30], 25)
    (tmp_path / bundle.MANIFEST).write_text(json.dumps({"core": manifest}))
    (tmp_path / "core-01.part").unlink()
    with pytest.raises(bundle.BundleError, match=r"parts are missing in .*: core-01\.part$"):
        bundle.install(tmp_path, tmp_path / "target")
    with pytest.raises(bundle.BundleError, match=r"manifest\.json is missing"):
        bundle.install(tmp_path / "nowhere", tmp_path / "target")


def test_the_choice_names_packages_of_the_lock():
    choice = tomllib.loads((ROOT / "tests/gpu/bundle.toml").read_text())
    named = [*choice["left_out"], *(package for group in choice["optional"].values() for package in group)]
    assert [package for package in named if package not in bundle.locked(bundle.LOCK)] == []
    assert len(named) == len(set(named))


def test_every_package_of_the_lock_is_in_one_place():
    versions = bundle.locked(bundle.LOCK)
    groups = bundle.choose(versions)
    listed = [requirement for group in groups.values() for requirement in group]
    assert len(listed) == len(set(listed))
    assert {"vllm==" + versions["vllm"], "verl==" + versions["verl"], "ray==" + versions["ray"]} <= set(groups["core"])
    left = {package for package in versions if f"{package}=={versions[package]}" not in listed}
    assert {"torch", "triton", "nvidia-nccl-cu13", "flashinfer-cubin", "tilelang", "flash-attn"} <= left
    assert "nvidia-cublas==" + versions["nvidia-cublas"] in groups["te"]
    assert "nvidia-ml-py==" + versions["nvidia-ml-py"] in groups["core"]  # Python, and vLLM asks it what GPUs there are


def test_plugins_are_found_without_installing_the_checkout(tmp_path):
    bundle._declare_entry_points(tmp_path)
    (folder,) = tmp_path.iterdir()
    found = {(point.group, point.name, point.value) for point in PathDistribution(folder).entry_points}
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    assert found == {(group, name, value) for group, points in declared.items() for name, value in points.items()}


# ---- the steps -------------------------------------------------------------------------------------------------------

# What stands in for a step's process: it does what FAKE says of its name.
FAKE = """
import json, os, subprocess, sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.gpu.report import Report
name, path = sys.argv[3], Path(sys.argv[sys.argv.index("--report") + 1])
what = json.loads(os.environ["FAKE"]).get(name, "ok")
report = Report(path, name, "cpu")
report.figure("a", 1.5)
report.check("one", True, 1, "1")
if what == "raise":
    report.error("part", ValueError("|wrong|"))
if what == "die":
    os._exit(3)
if what == "leave":
    subprocess.Popen(["sleep", "300"], start_new_session=True)
if what == "hang":
    time.sleep(300)
report.finish("no such device" if what == "skip" else None)
"""


@pytest.fixture
def kit(tmp_path, monkeypatch):
    """A function that runs the kit with steps that do what is said of their names; (exit status, results)."""
    python = tmp_path / "python"
    python.write_text(f"#!{sys.executable}\n" + FAKE.format(root=str(ROOT)))
    python.chmod(0o755)
    monkeypatch.setattr(runner.sys, "executable", str(python))
    monkeypatch.setattr(runner, "GRACE", 0.5)
    monkeypatch.setattr(runner, "_ON_CPU", 1.0)

    def run(seconds=600.0, steps=None, **what) -> tuple[int, dict]:
        monkeypatch.setenv("FAKE", json.dumps({name.replace("_", "-"): value for name, value in what.items()}))
        request = runner.Request(tmp_path / "out", tmp_path / "copy", seconds, "cpu", steps, None, tmp_path)
        status = runner.run(request)
        results = json.loads((tmp_path / "copy" / "kit.json").read_text())
        return status, {result["step"]: result for result in results}

    return run


def test_the_kit_goes_on_after_a_failure_and_keeps_what_was_found(kit, tmp_path):
    status, results = kit(parity_te="skip", imports="raise", resume="die")
    assert status == 1 and list(results) == [step.name for step in STEPS]
    assert {name: r["status"] for name, r in results.items() if r["status"] != "ok"} == {
        "parity-te": "skipped", "imports": "failed", "resume": "failed",
    }  # fmt: skip
    assert results["resume"]["figures"] == {"a": 1.5} and results["resume"]["exit status"] == 3
    text = (tmp_path / "copy" / "kit.md").read_text()
    assert "| resume | cpu | failed |" in text and "no such device" in text and "\\|wrong\\|" in text
    assert (tmp_path / "copy" / "logs.tar.gz").exists()


def test_what_is_left_is_done_by_the_next_command(kit):
    needs = STEPS[1].needs
    status, results = kit(seconds=needs)  # enough for the first
    assert status == runner.STEPS_LEFT and list(results) == ["imports"]
    started = results["imports"]["started"]
    status, results = kit()
    assert status == 0 and len(results) == len(STEPS) and results["imports"]["started"] == started
    _, results = kit(steps=["imports"])
    assert results["imports"]["started"] > started


def test_a_step_that_hangs_is_stopped_with_what_it_found(kit, monkeypatch):
    monkeypatch.setattr(runner, "STEPS", [STEPS[0].__class__("imports", "imports", "", 2.0, 0.0, "")])
    status, results = kit(imports="hang")
    assert status == 1 and results["imports"]["status"] == "stopped" and results["imports"]["figures"] == {"a": 1.5}


def test_a_step_that_the_end_of_the_command_cuts_off_is_run_again(kit, monkeypatch):
    monkeypatch.setattr(runner, "STEPS", [STEPS[0].__class__("imports", "imports", "", 60.0, 0.0, "")])
    status, results = kit(seconds=3.0, imports="hang")
    assert status == runner.STEPS_LEFT and results["imports"]["status"] == "cut off"
    status, results = kit()
    assert status == 0 and results["imports"]["status"] == "ok"


def test_processes_that_a_step_leaves_behind_are_ended(kit):
    kit(steps=["imports"], imports="leave")
    mark = f"{runner.MARK}={os.getpid()}.imports".encode()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        left = []
        for entry in Path("/proc").iterdir():
            try:
                left += [entry.name] if entry.name.isdigit() and mark in (entry / "environ").read_bytes() else []
            except OSError:
                continue
        if not left:
            return
        time.sleep(0.05)
    raise AssertionError(left)


def test_a_report_is_on_disk_after_each_finding(tmp_path):
    report = Report(tmp_path / "a.json", "imports", "cpu")
    with report.part("first"):
        report.check("x", False, 2, "1")
        raise KeyError("gone")
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["status"] == "running" and content["checks"][0]["found"] == 2
    assert content["errors"][0]["part"] == "first" and "KeyError" in content["errors"][0]["error"]
    assert report.finish() is False
    assert json.loads((tmp_path / "a.json").read_text())["status"] == "failed"


def test_steps_have_modules_and_limits():
    for step in STEPS:
        assert (ROOT / "tests/gpu/steps" / f"{step.module}.py").exists()
        assert 0 < step.needs <= step.limit
    assert [step.name for step in STEPS][:3] == ["imports", "parity-local", "parity-te"] and STEPS[-1].name == "learn"


def test_installing_needs_nothing_but_the_standard_library():
    """It runs before anything is installed."""
    code = "import sys; import tests.gpu.__main__; print([m for m in ('torch', 'verl', 'numpy') if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}"],
        capture_output=True,
        text=True,
    )
    assert result.stdout.strip() == "[]", result.stderr
