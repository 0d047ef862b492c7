"""Each method's smoke run on a CPU, and what makes it that method."""

import time
from pathlib import Path

import pytest
import torch

from tests.integration.test_training import prepared  # noqa: F401  a fixture
from verl_relift.testing.launch import finish, records, start

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.cuda.is_available(), reason="tests/gpu covers machines with a GPU"),
]

STEPS = 3


def data(prepared: Path) -> list[str]:  # noqa: F811
    return [f"data.train_files={prepared}/data/train.parquet", f"data.val_files={prepared}/data/test.parquet"]


def smoke(method: str, prepared: Path, run: Path, *overrides: str) -> list[dict]:  # noqa: F811
    process = start(
        "smoke",
        run,
        f"method={method}",
        *data(prepared),
        f"actor_rollout_ref.model.path={prepared}/model",
        f"trainer.total_training_steps={STEPS}",
        *overrides,
    )
    return finish(process, run)


def test_relift(prepared, tmp_path):  # noqa: F811
    made = smoke("relift", prepared, tmp_path / "run")
    assert made[-1]["relift/sft_updates"] == made[-1]["relift/demonstrations_accepted"] // 8
    assert "actor/grad_norm" in made[0] and "relift/sft_loss" in made[0]


def test_grpo(prepared, tmp_path):  # noqa: F811
    made = smoke("grpo", prepared, tmp_path / "run")
    assert "actor/grad_norm" in made[-1]
    assert not [name for name in made[-1] if name.startswith("relift/sft")]


def test_sft(prepared, tmp_path):  # noqa: F811
    """Every question is trained on, nothing is sampled but for validation."""
    made = smoke("sft", prepared, tmp_path / "run", "trainer.test_freq=2", "data.val_max_samples=4")
    assert made[-1]["relift/demonstrations_used"] == made[-1]["relift/demonstrations_accepted"] // 8 * 8
    assert made[1]["relift/sft_loss"] < made[0]["relift/sft_loss"]
    assert "timing_s/gen" not in made[-1] and "actor/grad_norm" not in made[-1]
    assert [name for name in made[1] if name.startswith("val-core/")]


def test_sft_may_save_before_its_first_update(prepared, tmp_path):  # noqa: F811
    """A checkpoint of an optimizer that has made no step, and a resume from it."""
    run = tmp_path / "run"
    overrides = ("method.sft.batch_size=16", "trainer.save_freq=1", "trainer.resume_mode=auto")
    first = smoke("sft", prepared, run, *overrides, "trainer.total_training_steps=1")
    assert first[-1]["relift/sft_updates"] == 0
    assert smoke("sft", prepared, run, *overrides)[-1]["relift/sft_updates"] == 1


def test_rl_with_sft_loss(prepared, tmp_path):  # noqa: F811
    """One optimizer step a mini-batch: the gradient norm of the demonstrations is that of the update."""
    made = smoke("rl_with_sft_loss", prepared, tmp_path / "run")
    assert made[-1]["relift/demonstrations_used"] == made[-1]["relift/demonstrations_accepted"] >= STEPS * 8 - 1
    assert made[-1]["relift/sft_grad_norm"] == made[-1]["actor/grad_norm"]
    assert made[-1]["relift/sft_loss"] < made[0]["relift/sft_loss"]


def test_relift_splice(prepared, tmp_path):  # noqa: F811
    """Waiting demonstrations join the update: one gradient norm for both losses."""
    made = smoke("relift_splice", prepared, tmp_path / "run")
    assert made[-1]["relift/sft_updates"] == made[-1]["relift/demonstrations_accepted"] // 8
    assert made[0]["relift/sft_grad_norm"] == made[0]["actor/grad_norm"]
    assert made[-1]["timing_s/update_actor_sft"] < 0.01  # no step of its own


def test_sft_then_rl(prepared, tmp_path):  # noqa: F811
    """ReLIFT from a supervised checkpoint, by one command; given again, it only says that all is done."""
    run = tmp_path / "run"
    arguments = (
        "method=sft_then_rl",
        "method.then.method=relift",
        "method.first.overrides=['trainer.save_freq=2']",
        *data(prepared),
        f"actor_rollout_ref.model.path={prepared}/model",
        "trainer.total_training_steps=2",
        "trainer.save_freq=2",
    )
    finish(start("smoke", run, *arguments), run)
    supervised, reinforced = records(run / "sft"), records(run / "rl")
    assert [r["step"] for r in supervised] == [r["step"] for r in reinforced] == [1, 2]
    assert "timing_s/gen" not in supervised[-1] and "timing_s/gen" in reinforced[-1]
    # The second stage begins where the first ended: its first demonstrations are already likelier than at the start.
    assert reinforced[0]["relift/sft_loss"] < supervised[0]["relift/sft_loss"]
    began = time.monotonic()
    finish(start("smoke", run, *arguments), run)
    assert time.monotonic() - began < 60  # no stage was started
    assert records(run / "rl") == reinforced
