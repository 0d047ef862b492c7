"""Methods that guide what is sampled, on the real stack: each trains, changes nothing when it is off, and resumes."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from verl_relift.testing.launch import differences, finish, kill_when, records, start, weights

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.cuda.is_available(), reason="tests/gpu covers machines with a GPU"),
]

STEPS = 4
MEGATRON = "actor_rollout_ref.actor.megatron"
DP2 = (f"{MEGATRON}.tensor_model_parallel_size=1", "actor_rollout_ref.rollout.tensor_model_parallel_size=1")
# Each method with guidance that acts on the small task, whose base model fails the hardest of four levels.
GUIDED = {
    "prefix_rft": ("method=prefix_rft",),
    "uft": ("method=uft",),
    "hint_retry-prefix": ("method=hint_retry",),
    "hint_retry-hint": ("method=hint_retry", "method.kind=hint", "data.max_prompt_length=96"),
    "hint_retry-bare": (
        "method=hint_retry",
        "method.kind=hint",
        "method.loss=bare",
        "data.max_prompt_length=96",
        # log-probs before the update have a pass of their own
        "actor_rollout_ref.actor.ppo_mini_batch_size=4",
    ),
    "hint_retry-column": ("method=hint_retry", "method.kind=column", "data.max_prompt_length=96"),
    "regft": ("method=regft", "data.max_prompt_length=96", "method.privileged.template='{question}{hint}{question}'"),
    "relift-privileged": (
        "method=relift",
        "method.demonstrations.source=privileged",
        "method.sft.batch_size=2",
        "data.max_prompt_length=96",
    ),
}
# Guidance that never comes.
OFF = {
    "prefix_rft": ("method.answers=0",),
    "uft": ("method.steps=0",),
    "hint_retry": ("method.first_step=1000",),
    "regft": ("method.demonstrations.max_tokens=1",),  # no solution is short enough
}


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> tuple[str, ...]:
    """Data, with hints, and base model of the small task, as overrides."""
    folder = tmp_path_factory.mktemp("task")
    data = ["data_preprocess.arithmetic", "--output", f"{folder}/data", "--train-size", "256", "--eval-size", "8"]
    base = ["verl_relift.quickstart.base_model", "--data", f"{folder}/data", "--output", f"{folder}/base"]
    for arguments in (data, [*base, "--steps", "150"]):
        subprocess.run([sys.executable, "-m", *arguments], check=True, capture_output=True)
    train = folder / "data" / "train.parquet"
    rows = pq.read_table(train)
    answers = [reward["ground_truth"] for reward in rows["reward_model"].to_pylist()]
    hints = pa.array([[f"{len(answer)}", answer] for answer in answers], pa.list_(pa.string()))
    pq.write_table(rows.append_column("hints", hints), train)
    return (
        f"data.train_files={train}",
        f"data.val_files={folder}/data/test.parquet",
        f"actor_rollout_ref.model.path={folder}/base",
        "data.train_batch_size=8",
        "actor_rollout_ref.actor.ppo_mini_batch_size=8",
        "trainer.resume_mode=auto",
        "trainer.save_freq=2",
        f"trainer.total_training_steps={STEPS}",
    )


def of_all(made: list[dict], name: str) -> list[float]:
    """The values of a metric in the steps that have it."""
    return [record[name] for record in made if name in record]


@pytest.mark.parametrize("case", GUIDED)
def test_it_trains(case, task, tmp_path):
    """Megatron TP2 and vLLM; what the policy wrote has the log-probs that vLLM says, also behind a head."""
    made = finish(start("quickstart", tmp_path / "run", *task, *GUIDED[case]), tmp_path / "run")
    assert [record["step"] for record in made] == list(range(1, STEPS + 1))
    assert any(norm > 0.0 for norm in of_all(made, "actor/grad_norm"))
    if case != "hint_retry-bare":  # it compares two prompts
        assert max(of_all(made, "training/rollout_log_probs_diff_max")) < 3e-5
    if case in ("prefix_rft", "uft"):
        assert sum(of_all(made, "method/forced_tokens")) > 0 and any(of_all(made, "actor/hint_loss"))
        assert of_all(made, "method/hint_reliance") or case == "uft"
    else:
        assert sum(of_all(made, "method/asked_again/level_1")) > 0
        assert sum(of_all(made, "method/second_round_tokens")) > 0


@pytest.mark.parametrize("layout", ["DP2", "TP2"])
def test_heads_on_two_data_parallel_ranks_train_as_on_one(layout, task, tmp_path):
    """Rows of different lengths, micro-batches of few tokens: the loss of the first step is the same."""
    small = "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=256"
    one, other = tmp_path / "one", tmp_path / "other"
    steps = ("method=prefix_rft", "trainer.total_training_steps=1")
    expected = finish(start("quickstart", one, *task, *steps), one)[0]
    found = finish(start("quickstart", other, *task, *steps, small, *(DP2 if layout == "DP2" else ())), other)[0]
    for name in ("actor/hint_loss", "actor/grad_norm", "actor/pg_loss"):
        assert found[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-7), name


@pytest.mark.parametrize("method", OFF)
def test_without_guidance_it_is_bit_equal_to_grpo(method, task, tmp_path):
    guided, grpo = tmp_path / "guided", tmp_path / "grpo"
    ours = finish(start("quickstart", guided, *task, f"method={method}", *OFF[method]), guided)
    theirs = finish(start("quickstart", grpo, *task, "method=grpo"), grpo)
    # A method that looks at its groups has metrics of its own.
    both = [{name: record[name] for name in other} for record, other in zip(ours, theirs, strict=True)]
    assert differences(both, theirs) == []
    assert weights(guided, STEPS) == weights(grpo, STEPS)


@pytest.mark.parametrize("case", ["hint_retry-prefix", "relift-privileged"])
def test_killed_and_resumed_is_bit_equal(case, task, tmp_path):
    overrides = (*task, *GUIDED[case])
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    expected = finish(start("quickstart", whole, *overrides), whole)
    process = start("quickstart", broken, *overrides)
    kill_when(process, broken, lambda: len(records(broken)) >= 3)
    resumed = finish(start("quickstart", broken, *overrides), broken)
    assert "resuming from step 2" in Path(broken.with_suffix(".log")).read_text()
    assert differences(resumed, expected) == []
    assert weights(broken, STEPS) == weights(whole, STEPS)
