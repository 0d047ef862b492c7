"""Responses that try to hang, crash, flood or run code in the grader: none succeeds."""

import resource
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import pytest

from verl_relift.rewards import Convention, GradeOutcome, Grader, GradingRules, PoolSettings
from verl_relift.testing.corpora import hostile

LIMIT_S = 0.4
GRACE_S = 0.3
MEMORY_MIB = 700
BUSY = 25  # how much longer the limit of processor seconds may take on a busy machine
EVERY = 12  # the fast tests grade one in this many cases of the corpus
# Parts of hostile texts that are correct nevertheless: 13 in an odd but unambiguous spelling.
RIGHT = ("13", "\u221a169", "\\boxed{13", "--13", "+13", "13.0", "\\in\\{13\\}", "\\boxed\\boxed", "0" * 100)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return hostile(tmp_path_factory.mktemp("hostile") / "canary")


def check_alone(canary, every):
    """Run `check` in its own process, because the kernel keeps the peak memory of children for a process's lifetime."""
    code = f"from tests.unit.rewards.test_hostile import check; check({str(canary)!r}, {every})"
    root = Path(__file__).parents[3]
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]


def check(canary: str, every: int) -> None:
    """Grade every `every`-th case of the corpus within the limits of time and memory, without running its code."""
    cases = hostile(Path(canary))
    with Grader(
        GradingRules(conventions=tuple(Convention)),
        PoolSettings(workers=1, time_limit_s=LIMIT_S, memory_limit_mib=MEMORY_MIB),
    ) as grader:
        grader.pool.start()
        fork_server_pid = grader.pool._fork_server.pid
        for name, response, truth in cases[::every]:
            started, used = time.perf_counter(), time.process_time()
            grade = grader.grade(response, truth)
            # The limit counts the worker's processor seconds, so a busy machine lengthens the clock's.
            assert time.process_time() - used < GRACE_S, name
            assert time.perf_counter() - started < BUSY * LIMIT_S, name
            if grade.outcome is GradeOutcome.CORRECT:
                written = unicodedata.normalize("NFKC", grade.extracted)  # digits of other shapes are digits
                assert truth == "13" and any(form in written for form in RIGHT), (name, grade)
        assert grader.pool._fork_server.pid == fork_server_pid, "the fork server did not survive"
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < MEMORY_MIB * 1024
    assert not Path(canary).exists()


def test_corpus_is_large(corpus):
    assert len({response for _, response, _ in corpus}) >= 500


def test_part_of_the_hostile_corpus(tmp_path):
    check_alone(tmp_path / "canary", EVERY)


@pytest.mark.slow
def test_whole_hostile_corpus(tmp_path):
    check_alone(tmp_path / "canary", 1)
