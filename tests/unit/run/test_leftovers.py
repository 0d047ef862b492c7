"""What dead runs of this user have left is removed, and nothing that anyone uses."""

import mmap
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from verl_relift.run import leftovers, private

RUN = """
import pathlib, sys, tempfile, time
from verl_relift.run import leftovers
leftovers.note_this_run(pathlib.Path(sys.argv[1]))
tempfile.mkdtemp()
tempfile.mkstemp(prefix="ckpt_", suffix=".lock")
print("noted", flush=True)
time.sleep(float(sys.argv[2]))
"""
SEGMENTS = ("psm_0a1b2c", "vllm_dist_0f3e-tp:0-[0-1]-cpushm_1", "33793-tp:0-[0-1]-cpushm_0", "verl_weights_7")
OTHERS = ("psm_xyz", "ordinary", "sem.mp-abc")


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Folders for temporary files and shared memory."""
    monkeypatch.setattr(leftovers, "_YOUNG_SECONDS", 0.2)
    folders = [tmp_path / part for part in ("tmp", "shm")]
    for folder in folders:
        folder.mkdir()
    return folders


def start(temporary: Path, seconds: float) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", RUN, str(temporary), str(seconds)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"noted\n"
    return process


def litter(memory: Path) -> None:
    for name in (*SEGMENTS, *OTHERS):
        (memory / name).write_bytes(b"x" * 64)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_next_run_removes_what_a_killed_one_left(machine):
    temporary, memory = machine
    process = start(temporary, 60)
    litter(memory)
    assert leftovers.remove(*machine) == []  # it is alive
    (folder,) = temporary.iterdir()
    assert len(names(folder)) == 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert leftovers.remove(*machine) == sorted(str(memory / name) for name in SEGMENTS)
    assert names(memory) == sorted(OTHERS) and names(temporary) == []
    assert leftovers.remove(*machine) == []


def test_a_run_that_ends_in_order_leaves_nothing(machine):
    temporary, memory = machine
    process = start(temporary, 0.0)
    litter(memory)
    assert process.wait(timeout=60) == 0
    assert names(temporary) == []
    assert leftovers.remove(*machine) == []


def test_what_is_in_use_or_older_or_somebody_elses_stays(machine):
    temporary, memory = machine
    for name in SEGMENTS[:1]:
        (memory / name).write_bytes(b"older")
    time.sleep(1.1)  # the time in a folder's name is in whole seconds
    process = start(temporary, 60)
    (memory / SEGMENTS[1]).write_bytes(b"x" * 64)
    (memory / SEGMENTS[2]).write_bytes(b"left")
    with open(memory / SEGMENTS[1], "r+b") as file, mmap.mmap(file.fileno(), 64):
        process.kill()
        process.wait()
        if os.getuid() == 0:
            (memory / SEGMENTS[3]).write_bytes(b"x")
            os.chown(memory / SEGMENTS[3], 12345, -1)
        assert leftovers.remove(*machine) == [str(memory / SEGMENTS[2])]


@pytest.mark.parametrize("chosen", [False, True])
def test_temporary_files_are_in_the_runs_folder_as_long_as_it_lasts(monkeypatch, tmp_path, chosen):
    if chosen:
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        monkeypatch.setattr(tempfile, "tempdir", None)
    before, set_ = tempfile.gettempdir(), os.environ.get("TMPDIR")
    assert (before == str(tmp_path)) is chosen and leftovers.folder_of_this_run() is None
    with leftovers.temporary_files() as folder:
        assert folder.parent == Path(before) and folder.stat().st_mode & 0o777 == 0o700
        assert Path(tempfile.mkdtemp()).parent == folder == leftovers.folder_of_this_run()
        code = "from verl_relift.run import leftovers; print(leftovers.folder_of_this_run())"
        assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == str(folder)
    assert not folder.exists() and tempfile.gettempdir() == before and os.environ.get("TMPDIR") == set_


def test_a_folder_that_others_can_open_is_refused(tmp_path):
    with leftovers.temporary_files(tmp_path) as folder:
        folder.chmod(0o755)
        with pytest.raises(private.NotPrivate):
            leftovers.folder_of_this_run()
