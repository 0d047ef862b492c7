"""Start, follow and kill training commands, and compare what they leave in their folders."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

# Metrics that depend on the clock or on the machine's memory, by the beginning of their names.
_MEASURED = ("timing_", "perf/", "actor/perf/", "time")


def start(
    config: str,
    run: Path,
    *overrides: str,
    options: tuple[str, ...] = (),
    cwd: Path | None = None,
    variables: Mapping[str, str] | None = None,
) -> subprocess.Popen:
    """Start training in a session of its own.

    Args:
        config: name of the configuration.
        run: the run's folder; the output goes to `<run>.log`.
        overrides: `key=value` strings.
        options: further options, for example `("--max-restarts", "2")`.
        cwd: the working directory; None: this process's.
        variables: environment variables in addition to this process's.
    """
    command = [sys.executable, "-m", "verl_relift.train", "--config-name", config, *options]
    log = run.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a") as output:
        return subprocess.Popen(
            [*command, f"trainer.default_local_dir={run}", *overrides],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            cwd=cwd,
            env={**os.environ, "WANDB_MODE": "offline", **(variables or {})},
        )


def finish(process: subprocess.Popen, run: Path, seconds: float = 900) -> list[dict]:
    """Wait for a run that must succeed.

    Returns:
        The records of its metrics.jsonl.

    Raises:
        AssertionError: it failed; the message is the end of its log.
        subprocess.TimeoutExpired: it took longer than `seconds` and was killed.
    """
    try:
        status = process.wait(timeout=seconds)
    finally:
        kill(process)
    assert status == 0, story(run)
    return records(run)


def story(run: Path) -> str:
    """Return why a run ended: the line of every death and restart, then the end of its log."""
    text = run.with_suffix(".log").read_text()
    causes = [line for line in text.splitlines() if line.startswith("training ")]
    return "\n".join([*causes, "...", text[-6000:]])


def records(run: Path) -> list[dict]:
    """Return the complete records of the run's metrics.jsonl, one per step."""
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def kill(process: subprocess.Popen) -> None:
    """Send SIGKILL to the process and all its descendants, as if the machine went down."""
    for victim in family(process):
        try:
            victim.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait()


def family(process: subprocess.Popen) -> list[psutil.Process]:
    """Return the process and its descendants; an empty list if it has ended."""
    try:
        root = psutil.Process(process.pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


_WITH_EMPTY_FOLDERS = """
set -e
new=$1 left=$2 keep=$3
shift 3
mount -t tmpfs -o mode=1777 tmpfs "$new"
case $keep in /tmp/*) mkdir -p "$new${keep#/tmp}" && mount --bind "$keep" "$new${keep#/tmp}" ;; esac
mount --move "$new" /tmp
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
status=0
"$@" || status=$?
find /tmp /dev/shm -mindepth 1 -path "$keep" -prune -o \\( ! -type d -o -empty \\) -print > "$left"
exit $status
"""


def with_empty_folders(command: Sequence[str], scratch: Path) -> tuple[list[str], Path]:
    """Let a command see an empty /tmp and an empty /dev/shm, and nobody else's files in them.

    Args:
        command: the command.
        scratch: a folder of pytest's, which stays visible with all that is beside it.

    Returns:
        The command to run instead, and the file in which it lists what it has left there. Where this user may not
        mount, the command itself, and an empty file.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    left, new = scratch / "left", scratch / "new"
    left.write_text("")
    new.mkdir()
    below_tmp = [path for path in scratch.parents if path.parent == Path("/tmp")]
    keep = below_tmp[0] if below_tmp else scratch
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        return list(command), left
    # torch writes its default, below this process's /tmp, into the environment.
    alone = ["env", "-u", "TORCHINDUCTOR_CACHE_DIR", "unshare", "--mount"]
    return [*alone, "sh", "-c", _WITH_EMPTY_FOLDERS, "sh", *map(str, (new, left, keep)), *command], left


def listening(process: subprocess.Popen) -> dict[int, tuple[str, str]]:
    """Return the ports on which a process and its descendants listen, with the address and the process's name."""
    found = {}
    for one in family(process):
        try:
            name, connections = " ".join(one.cmdline()[:2]) or one.name(), one.net_connections(kind="tcp")
        except psutil.NoSuchProcess:
            continue
        for connection in connections:
            if connection.status == psutil.CONN_LISTEN:
                found[connection.laddr.port] = (connection.laddr.ip.removeprefix("::ffff:"), name)
    return found


def socket_files(process: subprocess.Popen) -> set[Path]:
    """Return the sockets in the file system that a process and its descendants have open."""
    found = set()
    for one in family(process):
        try:
            connections = one.net_connections(kind="unix")
        except psutil.NoSuchProcess:
            continue
        found |= {Path(one.laddr) for one in connections if one.laddr.startswith("/")}
    return found


def wait_until(condition: Callable[[], bool], process: subprocess.Popen, run: Path, seconds: float = 900) -> None:
    """Wait until `condition` holds.

    Raises:
        AssertionError: the process ended before, or `seconds` have passed.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, story(run)
        assert time.monotonic() < deadline, f"{run} did not get this far within {seconds} s"
        time.sleep(0.02)


def kill_when(process: subprocess.Popen, run: Path, condition: Callable[[], bool], seconds: float = 900) -> None:
    """Kill the run as soon as `condition` holds, while it is still running."""
    wait_until(condition, process, run, seconds)
    kill(process)


def comparable(record: dict) -> dict:
    """Return the metrics on which two runs that do the same must agree to the last bit."""
    return {name: value for name, value in record.items() if not name.startswith(_MEASURED)}


def differences(ours: list[dict], theirs: list[dict]) -> list[str]:
    """List every metric that differs, with its step and both values."""
    found = []
    if [r["step"] for r in ours] != [r["step"] for r in theirs]:
        found.append(f"steps {[r['step'] for r in ours]} against {[r['step'] for r in theirs]}")
    for mine, other in zip(map(comparable, ours), map(comparable, theirs), strict=False):
        for name in mine.keys() | other.keys():
            if mine.get(name) != other.get(name):
                found.append(f"step {mine['step']}: {name} {mine.get(name)!r} against {other.get(name)!r}")
    return sorted(found)


def weights(run: Path, step: int) -> bytes:
    """Return the bytes of a checkpoint's exported weights."""
    return (run / f"global_step_{step}" / "actor/model/huggingface/model.safetensors").read_bytes()
