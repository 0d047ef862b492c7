"""The check of the GPU stack: what it leaves out exists, and what it takes for passed."""

from pathlib import Path

import pytest

from benchmarks.gpu_stack.__main__ import LEFT_OUT, _run

ROOT = Path(__file__).parents[4]


@pytest.mark.parametrize("name", LEFT_OUT)
def test_tests_that_are_left_out_exist(name):
    file, _, test = name.partition("::")
    function, _, parameters = test.partition("[")
    text = (ROOT / file).read_text()
    # In the file the beginnings of overrides have names.
    names = {"+ray_kwargs": "+{RAY}", "ray_kwargs": "{RAY}", "+actor_rollout_ref.rollout.engine_kwargs": "+{VLLM}"}
    assert f"def {function}" in text and (not parameters or f'(f"{names[parameters]}.' in text)


@pytest.mark.parametrize(
    ("code", "status", "passed", "said"),
    [
        ("print('one'); print('two')", 0, True, "two"),
        ("raise SystemExit('broken')", 0, False, "broken"),
        ("import sys; print('refused', file=sys.stderr); sys.exit(2)", 2, True, "refused"),
        ("import sys; print('one\\ntwo', file=sys.stderr); sys.exit(2)", 2, False, "two"),
        ("print('went on')", 2, False, "went on"),
    ],
)
def test_a_check_passes_with_its_status_and_a_refusal_in_one_line(code, status, passed, said):
    found = _run("step", "what", ["-c", code], status=status)
    assert (found.passed, found.said) == (passed, said)
