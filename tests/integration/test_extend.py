"""docs/extend.md, followed to the letter: its method is added to a copy of the package and trained with."""

import os
import re
import shutil
from pathlib import Path

import pytest
import torch

from tests.integration.test_training import prepared  # noqa: F401  a fixture
from verl_relift.testing.launch import finish, start

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="tests/gpu covers machines with a GPU")

ROOT = Path(__file__).parents[2]
STEPS = 2


def blocks() -> dict[str, str]:
    """The code blocks that begin with the path of a file."""
    text = (ROOT / "docs" / "extend.md").read_text()
    return dict(re.findall(r"```\w+\n# (verl_relift/\S+)\n(.*?)```", text, re.DOTALL))


@pytest.fixture
def extended(tmp_path) -> Path:
    """A folder with a copy of the package in which the method is: one file, one YAML file, one line."""
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "verl_relift", copy / "verl_relift", ignore=shutil.ignore_patterns("__pycache__"))
    added = blocks()
    line = added.pop("verl_relift/methods/registry.py")
    registry = copy / "verl_relift/methods/registry.py"
    first = "METHODS: dict[str, str] = {\n"
    registry.write_text(registry.read_text().replace(first, first + line))
    assert sorted(added) == ["verl_relift/config/method/head_start.yaml", "verl_relift/methods/head_start.py"]
    for path, content in added.items():
        assert not (copy / path).exists() and len(content.splitlines()) <= 100
        (copy / path).write_text(content)
    return copy


def test_the_method_of_the_documentation_trains(extended, prepared, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(extended), os.environ.get("PYTHONPATH", "")]))
    run = tmp_path / "run"
    process = start(
        "smoke",
        run,
        "method=head_start",
        f"data.train_files={prepared}/data/train.parquet",
        f"data.val_files={prepared}/data/test.parquet",
        f"actor_rollout_ref.model.path={prepared}/model",
        f"trainer.total_training_steps={STEPS}",
        "data.max_response_length=128",
        "method.demonstrations.max_tokens=512",
        cwd=extended,  # `python -m` looks there first
    )
    records = finish(process, run)
    assert [record["step"] for record in records] == [1, 2]
    for record in records:
        assert record["method/asked_again"] == 8  # a random model fails every question
        assert record["actor/hint_loss"] > 0.0  # -log pi of what it would not have written
        assert record["actor/grad_norm"] > 0.0
        assert record["training/rollout_log_probs_diff_max"] < 3e-5
