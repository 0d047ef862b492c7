"""docs/own-data.md, run as it stands: own file, own reward, two methods, their report, export and evaluation."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.cuda.is_available(), reason="tests/gpu covers machines with a GPU"),
]

PAGE = Path(__file__).parents[2] / "docs/own-data.md"


def test_the_page_runs_as_it_stands(tmp_path):
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    said = {}
    for language, code in re.findall(r"```(python|bash)\n(.*?)```", PAGE.read_text(), re.DOTALL):
        if language == "python":
            name = code.split("\n")[0].removeprefix("# ")
            (tmp_path / name).write_text(code)
            continue
        for command in code.replace("\\\n", " ").splitlines():
            ended = subprocess.run(
                command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900
            )
            assert ended.returncode == 0, f"{command}\n{ended.stdout[-2000:]}\n{ended.stderr[-4000:]}"
            module = re.sub(r".*-m (\S+).*", r"\1", command)
            said[module] = [*said.get(module, []), ended.stdout + ended.stderr]

    assert "96 graded: mean reward 1.100, 96 right, 0 partial, 0 wrong" in said["verl_relift.grade"][0]
    for console in said["verl_relift.train"]:
        lines = console.splitlines()
        first = next(number for number, line in enumerate(lines) if line.startswith("step 1/6  ETA "))
        assert first <= 10 and "np." not in console, console
        assert any(line.startswith("done: step 6 in ") and "validation accuracy" in line for line in lines)
    runs = [tmp_path / "outputs/mine" / name for name in ("relift", "grpo")]
    for run in runs:
        records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert [record["step"] for record in records] == list(range(1, 7))
        assert "val-core/mine/acc/mean@1" in records[-1]
    page = (tmp_path / "outputs/mine/report.html").read_text()
    assert "relift" in page and "grpo" in page and "finished, step 6 of 6" in page
    assert (tmp_path / "models/mine/model.safetensors").exists()
    assert "16 graded: " in said["verl_relift.grade"][1]
