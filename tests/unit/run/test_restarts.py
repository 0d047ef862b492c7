"""`--max-restarts`: which deaths lead to a restart, and from which checkpoint."""

import os
import signal
import subprocess
import sys
import time

import pytest

from verl_relift.run.restarts import take_option

# Stands in for training: records its starts and arguments, may write the tracker, and ends as its argument says.
PROGRAM = """
import os, pathlib, sys, time
run, *ends = pathlib.Path(sys.argv[1]), *sys.argv[2].split(",")
starts = run / "starts"
done = starts.read_text().splitlines() if starts.exists() else []
starts.write_text("\\n".join([*done, " ".join(sys.argv[3:]) or "-"]) + "\\n")
end = ends[len(done)]
if end.startswith("save"):
    (run / "latest_checkpointed_iteration.txt").write_text(str(len(done)))
    end = end.removeprefix("save")
if end == "kill":
    os.kill(os.getpid(), 9)
if end == "wait":
    time.sleep(60)
sys.exit(int(end))
"""

SUPERVISE = """
import sys, pathlib
from verl_relift.run.restarts import supervise
run, ends, limit = sys.argv[1:]
sys.exit(supervise([sys.executable, "-c", PROGRAM, run, ends], pathlib.Path(run), int(limit)))
"""


def start(run, ends: str, limit: int) -> subprocess.Popen:
    program = f"PROGRAM = {PROGRAM!r}\n{SUPERVISE}"
    return subprocess.Popen([sys.executable, "-c", program, str(run), ends, str(limit)], stderr=subprocess.PIPE)


def starts(run) -> list[str]:
    return (run / "starts").read_text().splitlines()


@pytest.mark.parametrize(
    ("ends", "limit", "status", "count"),
    [
        ("0", 3, 0, 1),
        ("1,0", 3, 0, 2),
        ("kill,0", 3, 0, 2),
        ("1,1,1", 2, 1, 3),
        ("kill,kill", 1, 137, 2),
        ("2", 3, 2, 1),  # rejected by the checks
        ("75", 3, 75, 1),  # stopped on request
        ("130", 3, 130, 1),  # Ctrl-C
    ],
)
def test_a_death_leads_to_a_restart(tmp_path, ends, limit, status, count):
    process = start(tmp_path, ends, limit)
    assert process.wait(timeout=60) == status
    assert len(starts(tmp_path)) == count


def test_it_resumes_only_from_a_checkpoint_of_its_own(tmp_path):
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("7")  # of an earlier run in this folder
    assert start(tmp_path, "1,save1,0", 3).wait(timeout=60) == 0
    assert starts(tmp_path) == ["-", "-", "trainer.resume_mode=auto"]


def test_sigterm_ends_the_child_without_a_restart(tmp_path):
    process = start(tmp_path, "wait,0", 3)
    deadline = time.time() + 60
    while not (tmp_path / "starts").exists():
        assert time.time() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(timeout=60) == 143
    assert len(starts(tmp_path)) == 1


def test_the_option_is_taken_out_of_the_command_line():
    assert take_option(["a=1", "--max-restarts", "2", "b=2"]) == (2, ["a=1", "b=2"])
    assert take_option(["--max-restarts=5"]) == (5, [])
    assert take_option(["a=1"]) == (0, ["a=1"])
    for wrong in (["--max-restarts"], ["--max-restarts", "a=1"], ["--max-restarts=-1"]):
        with pytest.raises(ValueError, match="needs a whole number"):
            take_option(wrong)
