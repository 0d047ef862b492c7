"""Worker processes: killed at the limit, replaced, and never left behind."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from verl_relift.rewards import GradeOutcome
from verl_relift.rewards.judge.worker_pool import WorkerPool
from verl_relift.rewards.settings import PoolSettings

HANGS = (("9^{9^{9^{9}}}", "x^{2}"),)
EASY = (("x+1", "1+x"),)
LIMIT_S = 0.5
BUSY = 10  # how much longer processor seconds may take on a busy machine
ATTEMPTS = 5


@pytest.fixture
def pool():
    with WorkerPool(PoolSettings(workers=1, time_limit_s=LIMIT_S)) as pool:
        pool.start()
        yield pool


def _children(pid):
    return [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]


def _living_children(pid):
    return [child for child in _children(pid) if _alive(child)]


def _alive(pid):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    return False


def _wait_until_dead(pids, seconds=10):
    deadline = time.monotonic() + seconds
    while any(map(_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(map(_alive, pids))


def test_a_hanging_answer_is_killed_and_the_next_is_judged(pool):
    took = []
    for _ in range(ATTEMPTS):  # the fastest one counts, because other work on the machine may delay any of them
        started = time.perf_counter()
        outcome, detail = pool.judge(HANGS)
        stopped = time.perf_counter()
        assert outcome is GradeOutcome.TIMED_OUT
        assert "0.5 s" in detail
        assert pool.judge(EASY)[0] is GradeOutcome.CORRECT
        took.append((stopped - started, time.perf_counter() - stopped))
    assert LIMIT_S <= min(hung for hung, _ in took) < LIMIT_S * BUSY
    assert min(easy for _, easy in took) < LIMIT_S
    assert len(_living_children(pool._fork_server.pid)) == 1


def test_an_answers_time_starts_when_its_worker_runs(pool, monkeypatch):
    """A slow fork must not cost an answer its verdict."""
    fork = pool._request_worker

    def slowly():
        fork_server_pid = pool._fork_server.pid
        os.kill(fork_server_pid, signal.SIGSTOP)
        threading.Timer(2 * LIMIT_S, os.kill, (fork_server_pid, signal.SIGCONT)).start()
        return fork()

    monkeypatch.setattr(pool, "_request_worker", slowly)
    assert pool.judge(HANGS)[0] is GradeOutcome.TIMED_OUT
    assert pool.judge(EASY)[0] is GradeOutcome.CORRECT


def test_time_without_a_processor_costs_no_verdict(pool):
    """A busy or suspended machine must not turn right answers into wrong ones."""
    assert pool.judge(EASY)[0] is GradeOutcome.CORRECT
    (worker,) = _children(pool._fork_server.pid)
    os.kill(worker, signal.SIGSTOP)
    threading.Timer(3 * LIMIT_S, os.kill, (worker, signal.SIGCONT)).start()
    assert pool.judge((("z+2", "2+z"),))[0] is GradeOutcome.CORRECT


def test_a_worker_that_cannot_judge_does_not_start():
    """Within too little memory every comparison would fail, which counts as a wrong answer."""
    with WorkerPool(PoolSettings(workers=1, memory_limit_mib=60)) as pool, pytest.raises(RuntimeError, match="judge"):
        pool.judge(EASY)


def test_others_are_unharmed_by_a_hanging_answer():
    with WorkerPool(PoolSettings(workers=2, time_limit_s=1.5)) as pool:
        pool.start()
        outcomes = []
        hanging = threading.Thread(target=lambda: outcomes.append(pool.judge(HANGS)[0]))
        hanging.start()
        for n in range(20):
            assert pool.judge(((f"x+{n}", f"{n}+x"),))[0] is GradeOutcome.CORRECT
        hanging.join()
        assert outcomes == [GradeOutcome.TIMED_OUT]


def test_memory_is_limited():
    limit_mib = 700
    with WorkerPool(PoolSettings(workers=1, time_limit_s=20, memory_limit_mib=limit_mib)) as pool:
        assert pool.judge(EASY)[0] is GradeOutcome.CORRECT
        (worker,) = _children(pool._fork_server.pid)
        limits = Path(f"/proc/{worker}/limits").read_text()
        assert str(limit_mib * 1024 * 1024) in next(line for line in limits.splitlines() if "address space" in line)
        peak = int(
            next(x for x in Path(f"/proc/{worker}/status").read_text().splitlines() if x.startswith("VmPeak")).split()[
                1
            ]
        )
        assert peak < limit_mib * 1024


def test_a_killed_worker_is_replaced_and_its_answer_judged_again(pool):
    assert pool.judge(EASY)[0] is GradeOutcome.CORRECT
    (worker,) = _children(pool._fork_server.pid)
    os.kill(worker, signal.SIGKILL)
    assert pool.judge(EASY)[0] is GradeOutcome.CORRECT


def test_a_killed_fork_server_is_replaced(pool):
    assert pool.judge(EASY)[0] is GradeOutcome.CORRECT
    fork_server_pid, workers = pool._fork_server.pid, _children(pool._fork_server.pid)
    os.kill(fork_server_pid, signal.SIGKILL)
    assert _wait_until_dead(workers), "workers outlived the fork server"
    assert pool.judge(EASY)[0] is GradeOutcome.CORRECT
    assert pool._fork_server.pid != fork_server_pid


def test_an_interrupted_wait_does_not_mix_up_verdicts(pool, monkeypatch):
    from verl_relift.rewards.judge import wire

    assert pool.judge(EASY)[0] is GradeOutcome.CORRECT
    with monkeypatch.context() as patch:
        patch.setattr(wire, "receive", _interrupt_once(wire.receive, patch))
        with pytest.raises(KeyboardInterrupt):
            pool.judge((("x", "y"),))
    assert pool.judge(EASY)[0] is GradeOutcome.CORRECT


def _interrupt_once(receive, patch):
    def interrupted(*arguments):
        patch.undo()
        raise KeyboardInterrupt

    return interrupted


def test_close_ends_every_process_and_the_pool_can_be_used_again():
    pool = WorkerPool(PoolSettings(workers=2))
    pool.judge(EASY)
    processes = [pool._fork_server.pid, *_children(pool._fork_server.pid)]
    pool.close()
    pool.close()
    assert _wait_until_dead(processes)
    assert pool.judge(EASY)[0] is GradeOutcome.CORRECT
    pool.close()


@pytest.mark.parametrize("death", ["os._exit(0)", "os.kill(os.getpid(), 9)", "sys.exit(0)"])
def test_no_process_outlives_its_parent(death):
    """This holds while a worker is judging, and with a forked sibling that keeps the parent's sockets open."""
    code = f"""
import os, sys, threading, time
from verl_relift.rewards.judge.worker_pool import WorkerPool
from verl_relift.rewards.settings import PoolSettings
pool = WorkerPool(PoolSettings(workers=1, time_limit_s=60))
pool.judge((("x+1", "1+x"),))
threading.Thread(target=pool.judge, args=((("9^{{9^{{9^{{9}}}}}}", "x^{{2}}"),),), daemon=True).start()
time.sleep(0.2)
pid = pool._fork_server.pid
print(pid, open(f"/proc/{{pid}}/task/{{pid}}/children").read(), flush=True)
{death}
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    pids = [int(pid) for pid in result.stdout.split()]
    assert len(pids) == 2, result.stderr
    assert _wait_until_dead(pids)


def test_a_judge_that_does_not_load_reports_the_reason(monkeypatch, tmp_path):
    (tmp_path / "math_verify.py").write_text("raise ImportError('broken installation')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with WorkerPool(PoolSettings(workers=1)) as pool:
        for _ in range(2):
            with pytest.raises(RuntimeError, match="broken installation"):
                pool.judge(EASY)
        monkeypatch.delenv("PYTHONPATH")
        assert pool.judge(EASY)[0] is GradeOutcome.CORRECT
