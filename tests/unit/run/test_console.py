"""The console of a command: its own lines reach the user, everything else the log, in a process of its own."""

import os
import pty
import subprocess
import sys
from pathlib import Path

NOISE = """
import atexit, logging, os, subprocess, sys, warnings
from pathlib import Path
from verl_relift.run import console

atexit.register(lambda: os.write(1, b"noise at exit\\n"))
console.say("before")
console.redirect(Path(sys.argv[1]), follow=sys.argv[2] == "follow")
console.show_messages()
print("noise of python")
warnings.warn("noise of a warning")
os.write(2, b"noise of C++\\n")
subprocess.run(["echo", "noise of a child"])
logging.getLogger("library").warning("noise of a library")
logging.getLogger("verl_relift.run").info("information")
logging.getLogger("verl_relift.run").warning("a warning of ours")
console.live("step 1 running")
console.say("step 1 done")
console.live("")
console.say("the reason")
console.show_followed()
"""


def run(log: Path, mode: str = "quiet", **arguments) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", NOISE, str(log), mode], timeout=60, **arguments)


def test_the_user_reads_what_the_program_says_and_the_log_has_everything(tmp_path):
    log = tmp_path / "logs" / "train.log"
    ended = run(log, capture_output=True, text=True)
    assert ended.returncode == 0 and ended.stdout == ""
    assert ended.stderr.splitlines() == ["before", "warning: a warning of ours", "step 1 done", "the reason"]
    text = log.read_text()
    for kind in ("python", "a warning", "C++", "a child", "a library"):
        assert text.count(f"noise of {kind}") == 1, kind
    assert "information" in text and "step 1 done" in text and text.endswith("noise at exit\n")


def test_verbose_shows_all_of_it_in_order(tmp_path):
    ended = run(tmp_path / "train.log", "follow", capture_output=True, text=True)
    shown = ended.stderr.splitlines()
    assert shown[0] == "before" and shown[-1] == "the reason"
    assert [line for line in shown if "noise of" in line and "warn(" not in line].__len__() == 5
    assert shown.count("step 1 done") == 1


def test_a_second_start_adds_to_the_log(tmp_path):
    for _ in range(2):
        run(tmp_path / "train.log", capture_output=True)
    lines = (tmp_path / "train.log").read_text().splitlines()
    assert len([line for line in lines if line.startswith("==== 20")]) == 2


def test_a_terminal_has_one_line_that_is_replaced(tmp_path):
    ours, theirs = pty.openpty()
    run(tmp_path / "train.log", stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            data = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not data:
            break
        shown += data
    text = shown.decode()
    assert "\r\x1b[2Kstep 1 running" in text and "\r\x1b[2Kstep 1 done" in text
    assert text.endswith("the reason\r\n") and "noise" not in text


def test_a_closed_terminal_does_not_end_the_command(tmp_path):
    read, write = os.pipe()
    os.close(read)
    ended = run(tmp_path / "train.log", stdout=subprocess.DEVNULL, stderr=write)
    os.close(write)
    assert ended.returncode == 0 and "the reason" in (tmp_path / "train.log").read_text()


def test_a_log_that_is_a_link_is_refused(tmp_path):
    (tmp_path / "train.log").symlink_to(tmp_path / "elsewhere")
    ended = run(tmp_path / "train.log", capture_output=True, text=True)
    assert ended.returncode != 0 and not (tmp_path / "elsewhere").exists()
