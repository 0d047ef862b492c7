"""One run at a time in a folder, whoever else is there and however the one before ended."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from verl_relift.run import lock
from verl_relift.run.lock import FolderInUse, LockLost, RunLock

HOLDER = """
import pathlib, sys, time
from verl_relift.run import lock
try:
    lock.hold(pathlib.Path(sys.argv[1]))
except lock.FolderInUse as error:
    print(error, flush=True)
    sys.exit(2)
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


def start(folder: Path, seconds: float = 60) -> subprocess.Popen:
    command = [sys.executable, "-c", HOLDER, str(folder), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def holder(tmp_path):
    process = start(tmp_path / "run")
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def as_written_by(folder: Path, **changed) -> None:
    """Leave the lock file that a process like this one has written."""
    folder.mkdir(exist_ok=True)
    (folder / lock.LOCK).write_text(json.dumps(lock._this_process() | changed))


def test_a_second_run_is_told_who_has_the_folder(tmp_path, holder):
    second = start(tmp_path / "run")
    assert second.wait(timeout=60) == 2
    said = second.stdout.read()
    assert f"process {holder.pid} on {lock.socket.gethostname()}, started 20" in said and said.count("\n") == 1


def test_the_folder_is_free_after_an_orderly_end(tmp_path):
    first = start(tmp_path / "run", 0.0)
    assert first.wait(timeout=60) == 0
    assert list((tmp_path / "run").iterdir()) == []
    RunLock(tmp_path / "run").acquire().release()


def test_a_killed_run_is_recognized_at_once(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert json.loads((tmp_path / "run" / lock.LOCK).read_text())["pid"] == holder.pid
    before = time.monotonic()
    with_silence = RunLock(tmp_path / "run").acquire(silence=600)
    assert with_silence.held() and time.monotonic() - before < 60
    with_silence.release()


def test_a_frozen_run_keeps_its_folder(tmp_path, holder):
    holder.send_signal(signal.SIGSTOP)
    with pytest.raises(FolderInUse):
        RunLock(tmp_path / "run").acquire()


def test_a_child_that_outlives_its_run_does_not_keep_the_lock(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    script = HOLDER.replace("time.sleep", "pid = os.fork()\n(time.sleep if pid == 0 else os._exit)").replace(
        "import pathlib", "import os, pathlib"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(folder), "5"], stdout=subprocess.DEVNULL)
    process.wait(timeout=60)
    RunLock(folder).acquire(silence=600).release()


def no_locks(monkeypatch) -> None:
    def flock(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", flock)


def test_without_the_file_systems_locks_the_process_decides(tmp_path, holder, monkeypatch):
    no_locks(monkeypatch)
    with pytest.raises(FolderInUse):
        # It beats while this one waits.
        monkeypatch.setattr(lock.time, "sleep", lambda _: os.utime(tmp_path / "run" / lock.LOCK))
        RunLock(tmp_path / "run").acquire(silence=600)
    holder.kill()
    holder.wait()
    RunLock(tmp_path / "run").acquire(silence=600).release()


@pytest.mark.parametrize("kernel_locks", [True, False])
def test_a_silent_run_on_another_machine_is_taken_over(tmp_path, monkeypatch, capsys, kernel_locks):
    if not kernel_locks:
        no_locks(monkeypatch)
    as_written_by(tmp_path / "run", host="node7", boot="another")
    RunLock(tmp_path / "run").acquire(silence=0.5).release()
    assert "on node7 had this folder; waiting up to" in capsys.readouterr().err


def test_a_run_on_another_machine_that_gives_signs_of_life_is_not(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    as_written_by(folder, host="node7", boot="another", pid=4711)
    monkeypatch.setattr(lock.time, "sleep", lambda _: os.utime(folder / lock.LOCK))
    with pytest.raises(FolderInUse, match=r"process 4711 on node7.*if that machine is gone, remove .*run\.lock"):
        RunLock(folder).acquire(silence=600)


def test_a_run_on_another_machine_that_ends_meanwhile_leaves_the_folder(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    as_written_by(folder, host="node7", boot="another")
    monkeypatch.setattr(lock.time, "sleep", lambda _: (folder / lock.LOCK).unlink(missing_ok=True))
    ours = RunLock(folder).acquire(silence=600)
    assert ours.held()
    ours.release()


def test_another_containers_process_number_says_nothing(tmp_path, monkeypatch):
    """Where the kernel's lock can't tell, a number that is free here may be a process there."""
    no_locks(monkeypatch)
    as_written_by(tmp_path / "run", pid_namespace="pid:[1]", pid=2**22 + 1)
    monkeypatch.setattr(lock.time, "sleep", lambda _: os.utime(tmp_path / "run" / lock.LOCK))
    with pytest.raises(FolderInUse):
        RunLock(tmp_path / "run").acquire(silence=600)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 3}'])
def test_a_file_that_was_cut_off_is_nobodys(tmp_path, content):
    (tmp_path / lock.LOCK).write_text(content)
    RunLock(tmp_path).acquire(silence=600).release()


def test_a_run_whose_folder_was_taken_over_writes_nothing_more(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_held", None)
    lock.require()  # a program that has locked nothing
    lock.hold(tmp_path)
    lock.require()
    as_written_by(tmp_path, host="node7")
    with pytest.raises(LockLost, match=r"another run has taken over"):
        lock.require()
    lock._held.release()
    assert json.loads((tmp_path / lock.LOCK).read_text())["host"] == "node7"  # the other's is left alone


def test_a_beat_is_a_change_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.01)
    ours = RunLock(tmp_path).acquire()
    os.utime(tmp_path / lock.LOCK, (0, 0))
    deadline = time.monotonic() + 60
    while (tmp_path / lock.LOCK).stat().st_mtime == 0:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    ours.release()
    assert not (tmp_path / lock.LOCK).exists()
