"""A signal is answered at once, and before what it ends has ended, in a process of its own."""

import signal
import subprocess
import sys

import pytest

# Ends only when its standard input does: what was said before that was said at once.
PROGRAM = """
import signal, sys, time
from verl_relift.run import stopping

if sys.argv[1] == "background":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
stopping.listen()
stopping.end_with(lambda: "stopping now; the same command resumes from step 3")
try:
    print("ready", flush=True)
    sys.stdin.readline()
except BaseException as error:
    print(type(error).__name__, flush=True)
    sys.stdin.readline()
    raise
print("not ended", flush=True)
"""


def start(mode: str = "") -> subprocess.Popen:
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, mode], stdin=pipe, stdout=pipe, stderr=pipe, text=True,
        # Tests that a shell has put into the background ignore it, and their children with them.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize(
    ("number", "name", "error", "status"),
    [
        (signal.SIGINT, "Ctrl-C", "KeyboardInterrupt", -signal.SIGINT),
        (signal.SIGTERM, "SIGTERM", "SystemExit", 128 + signal.SIGTERM),
    ],
)
def test_a_line_comes_before_the_end(number, name, error, status):
    process = start()
    process.send_signal(number)
    assert process.stderr.readline() == f"{name}: stopping now; the same command resumes from step 3\n"
    assert process.stdout.readline() == f"{error}\n"
    assert process.poll() is None
    _, rest = process.communicate("\n", timeout=60)
    assert process.returncode == status and "stopping now" not in rest


def test_the_second_signal_lets_the_run_end_and_the_third_breaks_it_off():
    process = start()
    process.send_signal(signal.SIGINT)
    process.stderr.readline()
    assert process.stdout.readline() == "KeyboardInterrupt\n"
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline().startswith("the run's processes are ending; a third signal")
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, rest = process.communicate(timeout=60)  # standard input is still open: the end was broken off
    assert process.returncode == 128 + signal.SIGTERM and "SIGTERM:" not in rest


def test_ctrl_c_stays_ignored_where_a_shell_ignores_it():
    process = start("background")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate("\n", timeout=60)
    assert process.returncode == 0 and out == "not ended\n" and err == ""
