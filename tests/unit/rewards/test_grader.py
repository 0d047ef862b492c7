"""Grading end to end: outcomes, the judge's rules, threads, event loops, forks."""

import asyncio
import json
import multiprocessing
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from verl_relift.rewards import (
    GradeOutcome,
    Grader,
    GradingRules,
    PoolSettings,
    RewardValues,
    Thinking,
    grade,
    grade_many,
    shared_grader,
    unanswerable_ground_truths,
    unparsable_ground_truths,
)


@pytest.fixture(scope="module")
def grader():
    with Grader(pool=PoolSettings(workers=2)) as grader:
        yield grader


def test_the_quickstarts_answer():
    response = "<think>7+7=14\n14+3=17\n17-4=13\n</think>\\boxed{13}"
    result = grade(response, "13", rules=GradingRules(thinking=Thinking.REQUIRED))
    assert result.outcome is GradeOutcome.CORRECT
    assert result.correct
    assert result.extracted == "13"
    assert not grade(response, "14").correct


def test_integers_never_start_a_process_and_nothing_heavy_is_imported():
    code = """
import sys
from verl_relift.rewards import grade, grade_many, shared_grader
assert grade(r'<think>7+7=14</think>\\boxed{13}', '13').correct
for answer in ('14', '7*2+3-4', '13=', '7*2+3-4=?', '13.5', '', '1/3', '1-', '012', '=13?', '--', '3*?'):
    grade(r'\\boxed{%s}' % answer, '12')
grade_many([('#### 5', 5)])
assert shared_grader().pool._fork_server is None
heavy = {'sympy', 'math_verify', 'torch', 'verl', 'numpy', 'ray', 'vllm', 'transformers', 'tqdm'} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("answer", "truth"),
    [
        ("x^2+2x+1", "(x+1)^2"),
        ("x=13", "13"),
        ("6+7=13", "13"),
        ("0.333333", "\\frac{1}{3}"),
        ("\\sqrt{8}", "2\\sqrt{2}"),
        ("13\\text{ cm}", "13"),
        ("13", "13\\text{ cm}"),
        ("90^{\\circ}", "90"),
        ("2^{10}-1", "1023"),
        ("2, 1", "1,2"),
        ("1\\text{ and }2", "\\{1,2\\}"),
        ("\\{1,2\\}", "1, 2"),
        ("x=1\\text{ or }x=2", "1,2"),
        ("\\pm 2", "-2,2"),
        ("(2,1)", "\\left(2,1\\right)"),
        ("[0.5,1)", "[\\frac{1}{2},1)"),
        ("(0,1)\\cup(2,\\infty)", "(2,\\infty)\\cup(0,1)"),
        ("\\begin{pmatrix}0.5&1\\end{pmatrix}", "\\begin{bmatrix}\\frac12&1\\end{bmatrix}"),
        ("3\\frac{1}{2}", "3.5"),
        ("y=2x+1", "y-1=2x"),
        ("\\frac{50}{3}\\%", "\\frac{50}{3}"),
        ("\\frac{50}{3}\\%", "\\frac{1}{6}"),
        ("\\frac{1}{6}", "\\frac{50}{3}\\%"),
    ],
)
def test_right_answers(grader, answer, truth):
    assert grader.grade(f"\\boxed{{{answer}}}", truth).outcome is GradeOutcome.CORRECT


@pytest.mark.parametrize(
    ("answer", "truth"),
    [
        ("either 1 or 2", "1"),
        ("\\text{either }1\\text{ or }2", "1"),
        ("1\\text{ or 2}", "1"),
        ("\\sqrt{2}\\text{ or 3}", "\\sqrt{2}"),
        ("13^{\\text{or }14}", "13"),
        ("13\\pm1", "13"),
        ("13\\text{ to }14", "13"),
        ("١٣", "13"),
        ("1\u200b3", "13"),
        ("Α", "A"),
        ("1,2", "12"),
        ("12,00", "1200"),
        ("0.13\\%", "13"),
        ("5000\\%", "50\\%"),
        ("1\\text{ or }2", "2"),
        ("1,2", "2"),
        ("1", "1,2"),
        ("1,2,3", "1,2"),
        ("(1,2)", "(2,1)"),
        ("[0,1]", "[0,1)"),
        ("(0,1)", "[0,1]"),
        ("\\begin{pmatrix}1&2\\end{pmatrix}", "\\begin{pmatrix}2&1\\end{pmatrix}"),
        ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\begin{pmatrix}1&2\\end{pmatrix}"),
        ("\\text{not }13", "13"),
        ("\\neq 13", "13"),
        ("12<x<14", "13"),
        ("x>12", "13"),
        ("12\\approx 13", "13"),
        ("x", "13"),
        ("13x", "13"),
        ("\\mathbb{R}", "13"),
        ("\\infty", "13"),
        ("\\frac{0}{0}", "13"),
        ("1=2", "x^2+1=0"),
        ("about 5 maybe 13", "13"),
        ("\\text{final answer is }$13$", "12"),
        ("13 12 11", "36"),
        ("\\frac{50}{3}\\%", "\\frac{1}{3}"),
    ],
)
def test_wrong_answers(grader, answer, truth):
    assert grader.grade(f"\\boxed{{{answer}}}", truth).outcome is GradeOutcome.WRONG


def test_a_list_of_alternatives_needs_one(grader):
    truths = ["\\sqrt{2}", "1.5"]
    assert grader.grade("\\boxed{\\frac{2}{\\sqrt{2}}}", truths).correct
    assert grader.grade("\\boxed{1.50}", truths).correct
    assert not grader.grade("\\boxed{\\sqrt{2}, 1.5}", truths).correct
    assert not grader.grade("\\boxed{2}", truths).correct


def test_text_after_the_box_changes_nothing(grader):
    assert grader.grade("\\boxed{13} apples. Or perhaps 14.", "13").correct
    assert not grader.grade("\\boxed{14} is wrong: it is 13.", "13").correct


def test_ground_truths_that_are_not_mathematics(grader):
    assert grader.grade("\\boxed{13}", "").outcome is GradeOutcome.GROUND_TRUTH_UNPARSABLE
    assert grader.grade("\\boxed{13}", None).outcome is GradeOutcome.GROUND_TRUTH_UNPARSABLE
    assert grader.grade("\\boxed{13}", "t(0,4]").outcome is GradeOutcome.GROUND_TRUTH_UNPARSABLE
    assert grader.grade("\\boxed{t (0,4]}", "$t(0,4]$").outcome is GradeOutcome.CORRECT
    assert grader.grade("no box", "t(0,4]").outcome is GradeOutcome.NO_ANSWER


def test_unparsable_ground_truths_are_found():
    assert unparsable_ground_truths(["5", "x+1", "t(0,4]", "", None, ["t(0,4]", "5"], "B"]) == [2, 3, 4]


def test_ground_truths_that_no_answer_can_match_are_found():
    texts = ["5", "t(0,4]", "\\frac{1", "", None, ["{", "7"], "a}b", "1 h 15 min", "\\sqrt5\\approx 2.236", 2e-06, " "]
    assert unanswerable_ground_truths(texts) == [2, 3, 4, 6, 10]


def test_every_outcome_has_a_sentence_and_a_reward():
    values = RewardValues(bad_format=-0.5)
    for outcome in GradeOutcome:
        assert outcome.sentence.endswith(".")
        assert values.of(outcome) == {"correct": 1.0, "bad_format": -0.5}.get(outcome, 0.0)


def test_settings_are_checked():
    with pytest.raises(ValueError, match="below"):
        RewardValues(timed_out=1.0)
    with pytest.raises(ValueError, match="conventions"):
        GradingRules(conventions=())
    with pytest.raises(ValueError, match="time_limit_s"):
        PoolSettings(time_limit_s=0)
    assert GradingRules(thinking="required").thinking is Thinking.REQUIRED


PAIRS = [(f"\\boxed{{{n}\\sqrt{{4}}x}}", f"{2 * (n % 7)}x") for n in range(40)]
EXPECTED = [n < 7 for n in range(40)]


def test_grade_many_keeps_order(grader, capsys):
    assert [g.correct for g in grader.grade_many(PAIRS, progress=True)] == EXPECTED
    assert "40/40" in capsys.readouterr().err
    assert [g.correct for g in grade_many([])] == []


def test_threads(grader):
    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda pair: grader.grade(*pair).correct, PAIRS * 2))
    assert results == EXPECTED * 2


def test_event_loop_stays_free():
    limit_s, tick_s = 0.5, 0.01

    async def main(grader):
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(tick_s)

        ticker = asyncio.create_task(tick())
        hanging = grader.grade_async("\\boxed{9^{9^{9^{9}}}}", "x^2")
        results = await asyncio.gather(hanging, *(grader.grade_async(*pair) for pair in PAIRS))
        ticker.cancel()
        return ticks, results

    with Grader(pool=PoolSettings(workers=2, time_limit_s=limit_s)) as grader:
        ticks, (hanging, *others) = asyncio.run(main(grader))
    assert hanging.outcome is GradeOutcome.TIMED_OUT
    assert [g.correct for g in others] == EXPECTED
    assert ticks > limit_s / tick_s / 4


def test_a_canceled_caller_leaves_the_verdict_to_the_others(grader):
    async def main():
        first = asyncio.create_task(grader.grade_async("\\boxed{z+\\sqrt{16}}", "z+4"))
        second = asyncio.create_task(grader.grade_async("\\boxed{z+\\sqrt{16}}", "z+4"))
        await asyncio.sleep(0)
        first.cancel()
        return await second

    assert asyncio.run(main()).correct


def test_same_answer_is_judged_once(grader):
    """The eight rollouts of a group often agree."""
    before = _answered(grader)
    pairs = [("\\boxed{w+\\sqrt{25}}", "w+5")] * 8 + [("so \\boxed{ w + \\sqrt{25} }", "w+5")] * 8
    assert all(g.correct for g in grader.grade_many(pairs))
    assert _answered(grader) - before == 1


def _answered(grader):
    return sum(worker.answered for worker in list(grader.pool._idle.queue) if worker is not None)


def _grade_in_child(queue):
    queue.put(shared_grader().grade("\\boxed{x+\\sqrt{4}}", "x+2").correct)


def test_a_forked_process_starts_its_own_workers():
    assert shared_grader().grade("\\boxed{x+\\sqrt{9}}", "x+3").correct
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_grade_in_child, args=(queue,))
    child.start()
    assert queue.get(timeout=60)
    child.join(30)
    assert child.exitcode == 0
    assert shared_grader().grade("\\boxed{x+\\sqrt{16}}", "x+4").correct


def test_verdicts_do_not_depend_on_the_hash_seed():
    code = (
        "import json; from verl_relift.rewards import grade_many;"
        "print(json.dumps([g.outcome for g in grade_many([(r'\\boxed{x^2+y^2+2xy}', '(x+y)^2'),"
        " (r'\\boxed{a=1,b=2}', 'b=2,a=1'), (r'\\boxed{y=x+z}', 'x=y-z')])]))"
    )
    outputs = [
        json.loads(
            subprocess.run(
                [sys.executable, "-c", code], check=True, capture_output=True, env={"PYTHONHASHSEED": seed}
            ).stdout
        )
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
