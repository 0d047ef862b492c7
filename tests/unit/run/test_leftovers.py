"""What dead runs of this user have left is removed, and nothing that anyone uses."""

import mmap
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from verl_relift.run import leftovers

RUN = """
import pathlib, sys, time
from verl_relift.run import leftovers
leftovers.note_this_run(pathlib.Path(sys.argv[1]))
print("noted", flush=True)
time.sleep(float(sys.argv[2]))
"""
SEGMENTS = ("psm_0a1b2c", "vllm_dist_0f3e-tp:0-[0-1]-cpushm_1", "33793-tp:0-[0-1]-cpushm_0", "verl_weights_7")
SOCKETS = ("01234567-89ab-cdef-0123-456789abcdef", "11234567-89ab-cdef-0123-456789abcdef")
OTHERS = ("psm_xyz", "ordinary", "sem.mp-abc")


@pytest.fixture
def machine(monkeypatch):
    """Folders for notes, shared memory and sockets; a socket's path must be short."""
    import tempfile

    monkeypatch.setattr(leftovers, "_YOUNG_SECONDS", 0.2)
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folders = [Path(name) / part for part in ("notes", "shm", "tmp")]
        for folder in folders:
            folder.mkdir()
        yield folders


def start(notes: Path, seconds: float) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", RUN, str(notes), str(seconds)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"noted\n"
    return process


def litter(memory: Path, temporary: Path) -> None:
    for name in (*SEGMENTS, *OTHERS):
        (memory / name).write_bytes(b"x" * 64)
    for name in SOCKETS:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(temporary / name))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_next_run_removes_what_a_killed_one_left(machine):
    notes, memory, temporary = machine
    process = start(notes, 60)
    litter(memory, temporary)
    assert leftovers.remove(*machine) == []  # it is alive
    process.send_signal(signal.SIGKILL)
    process.wait()
    expected = [*(memory / name for name in SEGMENTS), *(temporary / name for name in SOCKETS)]
    assert leftovers.remove(*machine) == sorted(map(str, expected))
    assert names(memory) == sorted(OTHERS) and names(temporary) == [] and names(notes) == []
    assert leftovers.remove(*machine) == []


def test_a_run_that_ends_in_order_leaves_no_note(machine):
    notes, memory, temporary = machine
    process = start(notes, 0.0)
    litter(memory, temporary)
    assert process.wait(timeout=60) == 0
    assert names(notes) == []
    assert leftovers.remove(*machine) == []


def test_what_is_in_use_or_older_or_somebody_elses_stays(machine):
    notes, memory, temporary = machine
    for name in SEGMENTS[:1]:
        (memory / name).write_bytes(b"older")
    os.sync()
    import time

    time.sleep(1.1)  # a note's time is in whole seconds
    process = start(notes, 60)
    (memory / SEGMENTS[1]).write_bytes(b"x" * 64)
    (memory / SEGMENTS[2]).write_bytes(b"left")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(temporary / SOCKETS[0]))
    listening.listen()
    (temporary / SOCKETS[1]).write_text("a file, no socket")
    with open(memory / SEGMENTS[1], "r+b") as file, mmap.mmap(file.fileno(), 64):
        process.kill()
        process.wait()
        if os.getuid() == 0:
            (memory / SEGMENTS[3]).write_bytes(b"x")
            os.chown(memory / SEGMENTS[3], 12345, -1)
        assert leftovers.remove(*machine) == [str(memory / SEGMENTS[2])]
    listening.close()
