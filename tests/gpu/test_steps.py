"""Every step of the kit as a test; docs/gpu.md says what each proves and how to run them within a time."""

import json
from pathlib import Path

import pytest

from tests.gpu import runner
from tests.gpu.steps import STEPS

GSM8K = Path(__file__).parents[1] / "data" / "gsm8k"


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
@pytest.mark.timeout(1800)
def test_everything_that_the_step_checks_holds(step, tmp_path):
    runner.run(runner.Request(tmp_path, None, step.limit + 60, "cuda", [step.name], None, GSM8K))
    (result,) = json.loads((tmp_path / "kit.json").read_text())
    if result["status"] == "skipped":
        pytest.skip(result["reason"])
    wrong = [check for check in result["checks"] if not check["holds"]]
    assert result["status"] == "ok", [wrong, result.get("errors"), result.get("log")]
