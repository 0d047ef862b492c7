"""The kit for the first GPU, rehearsed on a CPU from end to end: the same steps in small."""

import json
from pathlib import Path

import pytest
import torch

from tests.gpu import runner
from tests.gpu.steps import STEPS

GSM8K = Path(__file__).parents[1] / "data" / "gsm8k"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.cuda.is_available(), reason="tests/gpu covers machines with a GPU"),
]


@pytest.mark.timeout(3600)
def test_every_step_runs_to_its_end(tmp_path):
    assert runner.run(runner.Request(tmp_path, tmp_path / "copy", 3500.0, "cpu", None, None, GSM8K)) == 0
    results = json.loads((tmp_path / "copy" / "kit.json").read_text())
    assert [result["step"] for result in results] == [step.name for step in STEPS]
    # A CPU has no Transformer Engine; everything else is made.
    assert [result["step"] for result in results if result["status"] == "skipped"] == ["parity-te"]
    assert all(result["checks"] for result in results if result["status"] != "skipped")
