"""Measure grading: `python -m benchmarks.grading --data DIR [--only SECTION ...] [--output FILE.md]`.

DIR has `gsm8k/{train,test}.jsonl` and `olympiadbench/test.jsonl`. The baseline is math-verify, called serially, which
parses answer and ground truth for every response. Speeds are ratios of sides that take turns on the same responses in
one run, because the cores of a shared machine change their speed from minute to minute.
"""

import argparse
import logging
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import islice
from pathlib import Path

from benchmarks.report import Report, on_cores
from verl_relift.rewards import Grade, GradeOutcome, Grader, GradingRules, PoolSettings
from verl_relift.rewards.text import remarks, tidy
from verl_relift.rewards.unevaluated import is_unevaluated
from verl_relift.testing.corpora import (
    SolvedProblem,
    boxed,
    equivalent_forms,
    hostile,
    last_digit_changed,
    long_responses,
    read_gsm8k,
    read_olympiadbench,
)

SEED = 4
MIXED_RESPONSES = 100_000
MIXED_HOSTILE = 500
MIXED_LIMIT_S = 1.0
HOSTILE_LIMIT_S = 1.0
HOSTILE_MEMORY_MIB = 1024
SPEED_QUESTIONS = 675
SPEED_CHUNK = 64
CORES_ROUNDS = 5
CORES_WARM_UP = 400  # answers per worker
CORES_CHUNK = 300  # together with the warm-up fewer answers than a worker judges before it is replaced
CORES_LIMIT_S = 1.0
MAX_LISTED = 30

Pair = tuple[str, str]


def math_verify_serially(response: str, truth: str) -> bool:
    """Return the baseline's verdict. A response that math-verify gives up on counts as wrong."""
    from math_verify import parse, verify

    return verify(parse(f"\\boxed{{{truth}}}"), parse(response))


def seconds(function: Callable[[], object]) -> float:
    """Return the wall-clock seconds of a call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def cpu_seconds(grader: Grader | None = None) -> float:
    """Return the processor seconds of this process and of all workers of a grader, including those that have ended."""
    if grader is None:
        return time.process_time()
    server = grader.pool._fork_server.pid
    ticks = sum(_ticks(server, ended=True)) + sum(sum(_ticks(worker)) for worker in _children(server))
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def _ticks(pid: int, ended: bool = False) -> list[int]:
    """Return user and system time of a process, or of its ended children, in clock ticks (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return [int(field) for field in (fields[13:15] if ended else fields[11:13])]


def explain(grade: Grade, theirs: bool, response: str, truth: str) -> str:
    """Return the rule of docs/rewards.md that makes the verdict differ from math-verify's."""
    if grade.outcome is GradeOutcome.NO_ANSWER:
        return "no marked answer: math-verify takes the last number or formula of the text"
    answer, truth = tidy(grade.extracted or ""), tidy(truth)
    if theirs and is_unevaluated(answer, truth):
        return "a calculation left to the grader"
    if theirs and remarks(answer):
        return "words after a value that are not a unit"
    if not theirs and "%" in answer + truth:
        return "percentages (this antlr's grammar has none)"
    if not theirs and (grade.extracted or "").rstrip().endswith("."):
        return "a period inside the box"
    if theirs and grade.outcome is GradeOutcome.GROUND_TRUTH_UNPARSABLE:
        return "no mathematics: math-verify compares a number that it finds in both texts"
    if not theirs and answer == truth:
        return "the ground truth's own text, which math-verify cannot parse"
    if not theirs and truth in answer and any(character.isalpha() for character in truth):
        return "around the ground truth's own text, where math-verify takes a letter for a unit"
    return "UNEXPLAINED"


def bench_speed(report: Report, olympiad: list[SolvedProblem], gsm8k: list[SolvedProblem]) -> None:
    """Compare one core with serial math-verify; the sides take turns chunk by chunk."""
    rng = random.Random(SEED)
    report.add("## Throughput and verdicts on long responses\n")
    rows, differences = [], Counter()
    for name, questions in (("OlympiadBench", olympiad), ("GSM8K", gsm8k)):
        pool = [question for question in questions if question.solution]
        responses = list(long_responses(rng.sample(pool, min(SPEED_QUESTIONS, len(pool))), SEED))
        pairs = [(response, truth) for _, response, truth in responses]
        with on_cores(1), Grader(pool=PoolSettings(workers=1, time_limit_s=10)) as grader:
            grader.pool.start()
            math_verify_serially("\\boxed{x^2}", "x^2")
            grader.grade("\\boxed{x+1}", "1+x")
            mine_s = theirs_s = mine_cpu_s = theirs_cpu_s = 0.0
            for start in range(0, len(pairs), SPEED_CHUNK):
                chunk = pairs[start : start + SPEED_CHUNK]
                grades: list[Grade] = []
                verdicts: list[bool] = []
                before = cpu_seconds(grader)
                mine_s += seconds(lambda c=chunk, g=grades: g.extend(grader.grade_many(c)))
                between = cpu_seconds(grader)
                theirs_s += seconds(lambda c=chunk, v=verdicts: v.extend(math_verify_serially(*pair) for pair in c))
                mine_cpu_s += between - before
                theirs_cpu_s += cpu_seconds(grader) - between
                for pair, grade, theirs in zip(chunk, grades, verdicts, strict=True):
                    if grade.correct != theirs:
                        differences[name, explain(grade, theirs, *pair)] += 1
        characters = statistics.mean(len(response) for response, _ in pairs)
        rows.append(
            (name, len(pairs), f"{characters:,.0f}", f"{len(pairs) / theirs_s:.0f}", f"{len(pairs) / mine_s:.0f}",
             f"{theirs_s / mine_s:.1f}x", f"{theirs_cpu_s / mine_cpu_s:.1f}x")
        )  # fmt: skip
    report.table(
        (
            "questions",
            "responses",
            "mean characters",
            "math-verify /s",
            "grader /s",
            "ratio, one core",
            "ratio, CPU time",
        ),
        rows,
    )
    report.table(("corpus", "why a verdict differs", "responses"), [(*key, n) for key, n in differences.items()])


def bench_cores(report: Report, olympiad: list[SolvedProblem]) -> None:
    """Compare two workers on two cores with one on one core, on distinct answers that all need a worker.

    Every worker has judged equally many other answers before the clock starts, as in a long training run. Answers that
    reach the time limit are left out, because each holds one worker that long regardless of the number of workers.
    """
    if len(os.sched_getaffinity(0)) < 2:
        report.add("Two cores: skipped, because this machine has one core.\n")
        return
    rng = random.Random(SEED)
    truths = [question.truth for question in olympiad if not question.truth.strip("$").isdigit()]
    count = 2 * CORES_WARM_UP + CORES_ROUNDS * CORES_CHUNK
    with on_cores(1):
        one = Grader(pool=PoolSettings(workers=1, time_limit_s=CORES_LIMIT_S))
        one.pool.start()
    with one, Grader(pool=PoolSettings(workers=2, time_limit_s=CORES_LIMIT_S)) as two:
        two.pool.start()
        pairs, endless = _need_the_judge(((f"+{n}", rng.choice(truths)) for n in range(10**6)), truths, rng, count)
        sides = {1: one, 2: two}
        for cores, grader in sides.items():
            with on_cores(cores):
                grader.grade_many(pairs[: cores * CORES_WARM_UP])
        ratios, cpu, busiest, total = [], Counter(), [], Counter()
        for number in range(CORES_ROUNDS):
            start = 2 * CORES_WARM_UP + number * CORES_CHUNK
            chunk = pairs[start : start + CORES_CHUNK]
            took = {}
            for cores in (1, 2) if number % 2 else (2, 1):
                grader = sides[cores]
                before, workers = cpu_seconds(grader), _worker_ticks(grader)
                with on_cores(cores):
                    took[cores] = seconds(lambda c=chunk, g=grader: g.grade_many(c))
                cpu[cores] += cpu_seconds(grader) - before
                if cores == 2:
                    spent = [ticks - workers.get(worker, 0) for worker, ticks in _worker_ticks(grader).items()]
                    busiest.append(max(spent) / max(1, sum(spent)))
            ratios.append(took[1] / took[2])
            total.update(took)
    report.add("## Two cores\n")
    report.add(
        f"{CORES_ROUNDS} rounds of {CORES_CHUNK} answers that all need a worker; the sides take turns; load average "
        f"{os.getloadavg()[0]:.1f} at the end. Two workers on two cores are {statistics.median(ratios):.2f}x as fast "
        f"as one on one core (median; rounds: {', '.join(f'{ratio:.2f}' for ratio in ratios)}; all rounds together "
        f"{total[1] / total[2]:.2f}x, {total[2]:.1f} s). They use {cpu[2] / cpu[1]:.2f}x the CPU time; the busier "
        f"worker does {statistics.median(busiest):.0%} of the work. {endless} of {count + endless} answers are left "
        f"out because they reach the limit of {CORES_LIMIT_S:g} s.\n"
    )


def _need_the_judge(
    drawn: Iterator[tuple[str, str]], truths: list[str], rng: random.Random, count: int
) -> tuple[list[Pair], int]:
    """Return pairs of a changed truth and another truth that a worker decides within its limit.

    Args:
        drawn: pairs of a change and a truth.
        truths: truths to change.
        rng: source of randomness.
        count: number of pairs to return.

    Returns:
        The pairs, and the number of pairs that reached the limit.
    """
    pairs: list[Pair] = []
    endless = 0
    with Grader(pool=PoolSettings(workers=2, time_limit_s=CORES_LIMIT_S)) as grader:
        while len(pairs) < count:
            candidates = [(boxed(rng.choice(truths) + change), truth) for change, truth in islice(drawn, count)]
            candidates = [pair for pair in candidates if grader.grade_exactly(*pair)[1] is not None]
            for pair, grade in zip(candidates, grader.grade_many(candidates), strict=True):
                if len(pairs) == count:
                    break
                if grade.outcome is GradeOutcome.TIMED_OUT:
                    endless += 1
                else:
                    pairs.append(pair)
    return pairs, endless


def _worker_ticks(grader: Grader) -> dict[int, int]:
    return {worker: sum(_ticks(worker)) for worker in _children(grader.pool._fork_server.pid)}


def bench_mixed(report: Report, questions: list[SolvedProblem], canary: Path) -> None:
    """Find the slowest of many responses, some of which are hostile."""
    rng = random.Random(SEED)
    bad = [(response, truth) for _, response, truth in rng.sample(hostile(canary), MIXED_HOSTILE)]
    endless = (pair for seed in range(10**6) for pair in long_responses(questions, seed))
    slowest, outcomes, total = [], Counter(), 0.0
    with Grader(pool=PoolSettings(workers=1, time_limit_s=MIXED_LIMIT_S)) as grader:
        grader.pool.start()
        for index, (_, response, truth) in enumerate(islice(endless, MIXED_RESPONSES - MIXED_HOSTILE)):
            batch = [(response, truth)]
            if index % (MIXED_RESPONSES // MIXED_HOSTILE - 1) == 0 and bad:
                batch.append(bad.pop())
            for pair in batch:
                started = time.perf_counter()
                outcomes[grader.grade(*pair).outcome.value] += 1
                took = time.perf_counter() - started
                total += took
                slowest = sorted([*slowest, took])[-5:]
    report.add("## Slowest of many\n")
    report.add(
        f"{sum(outcomes.values()):,} responses, {MIXED_HOSTILE} of them hostile; time limit {MIXED_LIMIT_S} s: slowest "
        f"{slowest[-1]:.3f} s, mean {1e6 * total / sum(outcomes.values()):.0f} us. Outcomes: {dict(outcomes)}.\n"
    )


def bench_hostile(report: Report, canary: Path) -> None:
    """Grade every hostile case and measure time, memory and survival."""
    cases = hostile(canary)
    slowest, outcomes, peak_kib = 0.0, Counter(), 0
    with Grader(
        pool=PoolSettings(workers=1, time_limit_s=HOSTILE_LIMIT_S, memory_limit_mib=HOSTILE_MEMORY_MIB)
    ) as grader:
        grader.pool.start()
        server = grader.pool._fork_server.pid
        for _, response, truth in cases:
            started = time.perf_counter()
            outcomes[grader.grade(response, truth).outcome.value] += 1
            slowest = max(slowest, time.perf_counter() - started)
            peak_kib = max([peak_kib, *map(_peak_kib, _children(server))])
        survived = grader.pool._fork_server.pid == server
    report.add("## Hostile corpus\n")
    report.add(
        f"{len(cases)} cases ({len({c[1] for c in cases})} distinct responses), limits {HOSTILE_LIMIT_S} s and "
        f"{HOSTILE_MEMORY_MIB} MiB of address space: slowest {slowest:.3f} s, largest resident worker "
        f"{peak_kib / 1024:.0f} MiB, fork server survived: {survived}, a payload wrote a file: {canary.exists()}. "
        f"Outcomes: {dict(outcomes)}.\n"
    )


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _peak_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) if "VmHWM:" in status else 0


def bench_gsm8k(report: Report, gsm8k: list[SolvedProblem]) -> None:
    """Grade GSM8K's own solutions in both conventions, correct and with the last digit changed."""
    rows = []
    with Grader() as grader:
        for name, ending in (("#### n", "\n#### {}"), ("boxed", "\nThe answer is \\boxed{{{}}}.")):
            right = [(q.solution + ending.format(q.truth), q.truth) for q in gsm8k]
            wrong = [(q.solution + ending.format(last_digit_changed(q.truth)), q.truth) for q in gsm8k]
            took = seconds(lambda r=right: grader.grade_many(r))
            correct = sum(g.correct for g in grader.grade_many(right))
            fooled = sum(g.correct for g in grader.grade_many(wrong))
            rows.append((name, len(right), correct, fooled, f"{1e6 * took / len(right):.0f}"))
    report.add("## GSM8K's solutions as responses\n")
    report.table(("convention", "solutions", "correct", "correct with the last digit changed", "us per solution"), rows)


def bench_olympiad(report: Report, olympiad: list[SolvedProblem]) -> None:
    """Grade every answer against itself and in rewritten forms, and compare the verdicts with math-verify's."""
    from math_verify import parse, verify

    reasons: Counter[str] = Counter()
    listed: list[tuple[str, str, str, str]] = []
    itself = rewritten = agreed = rejected = 0
    pool = PoolSettings(workers=1, time_limit_s=10)
    with Grader(pool=pool) as strict, Grader(GradingRules(allow_unevaluated=True), pool) as lenient:
        for question in olympiad:
            itself += strict.grade(boxed(question.truth), question.truth).correct
            gold = parse(f"\\boxed{{{question.truth}}}")
            for form in equivalent_forms(question.truth):
                response = boxed(form)
                theirs = verify(gold, parse(response))
                grade = strict.grade(response, question.truth)
                rewritten += 1
                agreed += grade.correct == theirs
                rejected += theirs and not lenient.grade(response, question.truth).correct
                if grade.correct != theirs:
                    reason = explain(grade, theirs, response, question.truth)
                    if reasons[reason] < MAX_LISTED // 8 or reason == "UNEXPLAINED":
                        listed.append((reason, f"`{form}`", f"`{question.truth}`", f"{grade.outcome}"))
                    reasons[reason] += 1
    report.add("## OlympiadBench\n")
    report.add(
        f"{itself} of {len(olympiad)} answers are correct against themselves. {agreed} of {rewritten} rewritten forms "
        f"get math-verify's verdict. With `allow_unevaluated`, {rejected} forms that math-verify accepts are wrong.\n"
    )
    report.table(("why a verdict differs", "forms"), list(reasons.items()))
    report.table(("for example", "answer", "ground truth", "outcome"), listed[:MAX_LISTED])


def main() -> None:
    """Run the command."""
    sections = ("speed", "cores", "gsm8k", "olympiad", "hostile", "mixed")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with gsm8k/ and olympiadbench/")
    parser.add_argument("--output", type=Path, help="also write the report to this Markdown file")
    parser.add_argument("--only", nargs="+", choices=sections, default=sections)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)  # math-verify logs a warning for every response that it gives up on
    gsm8k = [q for part in ("train", "test") for q in read_gsm8k(arguments.data / "gsm8k" / f"{part}.jsonl")]
    olympiad = read_olympiadbench(arguments.data / "olympiadbench" / "test.jsonl")
    report = Report()
    report.add(f"# Grading, {datetime.now(UTC):%Y-%m-%d}\n")
    report.add(
        f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores (shared), Python {platform.python_version()}, "
        f"math-verify {version('math-verify')}, latex2sympy2_extended {version('latex2sympy2_extended')}, "
        f"sympy {version('sympy')}.\n\nCommand: `python -m benchmarks.grading {' '.join(_shown(sys.argv[1:]))}`\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        canary = Path(folder) / "canary"
        runs: dict[str, Callable[[], None]] = {
            "speed": lambda: bench_speed(report, olympiad, gsm8k),
            "cores": lambda: bench_cores(report, olympiad),
            "gsm8k": lambda: bench_gsm8k(report, gsm8k),
            "olympiad": lambda: bench_olympiad(report, olympiad),
            "hostile": lambda: bench_hostile(report, canary),
            "mixed": lambda: bench_mixed(report, [*olympiad, *gsm8k], canary),
        }
        for section in arguments.only:
            runs[section]()
    if arguments.output:
        arguments.output.write_text("\n".join(report.lines).rstrip() + "\n", encoding="utf-8")


def _shown(arguments: list[str]) -> list[str]:
    """Return the arguments with paths cut to their last part, because a record names no machine's paths."""
    return [Path(argument).name if os.sep in argument else argument for argument in arguments]


if __name__ == "__main__":
    main()
