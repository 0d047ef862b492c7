"""Settings of verl's that checks accept: each trains, and has its effect on an update of one seed."""

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from tests.integration.test_training import prepared  # noqa: F401  a fixture
from verl_relift.testing.launch import finish, start

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.cuda.is_available(), reason="tests/gpu covers machines with a GPU"),
]

ACTOR, ROLLOUT, ALGORITHM = "actor_rollout_ref.actor", "actor_rollout_ref.rollout", "algorithm"
ENGINE, OPTIM, CORRECTION = f"{ACTOR}.megatron", f"{ACTOR}.optim", f"{ALGORITHM}.rollout_correction"
BASE = {
    "method": "grpo",
    "data.train_batch_size": "4",
    f"{ACTOR}.ppo_mini_batch_size": "2",
    "data.max_response_length": "32",
    "trainer.total_training_steps": "2",
    "trainer.save_freq": "-1",
    "trainer.n_gpus_per_node": "1",
    f"{ENGINE}.tensor_model_parallel_size": "1",
    f"{ROLLOUT}.tensor_model_parallel_size": "1",
    "trainer.resume_mode": "disable",
}
STEPS = 2


@dataclass(frozen=True)
class Case:
    """Settings and what the last step shows of them.

    Attributes:
        settings: overrides.
        changed: metrics that differ from those of the plain run.
        same: metrics that equal those of the plain run but for rounding.
        there: metrics that the plain run does not have.
        files: patterns in the folder beside the run that must have matches.
        deep: whether the model has four layers in the place of two.
    """

    settings: tuple[str, ...]
    changed: tuple[str, ...] = ()
    same: tuple[str, ...] = ()
    there: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    deep: bool = False


def loss(mode: str, *settings: str) -> Case:
    return Case((f"{ACTOR}.policy_loss.loss_mode={mode}", *settings), changed=("actor/grad_norm",))


def estimator(name: str, *settings: str) -> Case:
    return Case((f"{ALGORITHM}.adv_estimator={name}", *settings), changed=("actor/grad_norm",))


FIXED = (
    f"{ACTOR}.use_dynamic_bsz=false",
    f"{ROLLOUT}.log_prob_use_dynamic_bsz=false",
    f"{ACTOR}.ppo_micro_batch_size_per_gpu=2",
    f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu=2",
)
PIPELINE = (
    "trainer.n_gpus_per_node=2",
    f"{ENGINE}.pipeline_model_parallel_size=2",
    f"{ENGINE}.virtual_pipeline_model_parallel_size=2",
)
FILTER = (f"{ALGORITHM}.filter_groups.enable=true", f"{ALGORITHM}.filter_groups.metric=acc")
UPDATE = ("actor/grad_norm", "actor/pg_loss")
CASES = {
    "filter_groups": Case(FILTER),
    "kl_loss": Case(
        (f"{ACTOR}.use_kl_loss=true", f"{ACTOR}.kl_loss_coef=0.5", f"{ACTOR}.kl_loss_type=k2"), there=("actor/kl_loss",)
    ),
    "kl_in_reward": Case(
        (f"{ALGORITHM}.use_kl_in_reward=true", f"{ALGORITHM}.kl_ctrl.type=adaptive", f"{ALGORITHM}.kl_ctrl.kl_coef=0.1")
    ),
    "fixed micro-batches": Case(FIXED, same=UPDATE),
    "virtual pipeline": Case(PIPELINE, deep=True),
    "pad_to_length": Case((f"{ENGINE}.pad_to_length=true", f"{ENGINE}.pad_to_length_bucket=512"), same=UPDATE),
    "rollout_is": Case(
        (
            f"{CORRECTION}.rollout_is=token",
            f"{CORRECTION}.rollout_is_threshold=1.0001",
            f"{ROLLOUT}.calculate_log_probs=true",
        ),
        there=("rollout_corr/rollout_is_mean",),
    ),
    "rollout_rs": Case(
        (
            f"{CORRECTION}.rollout_is=sequence",
            f"{CORRECTION}.rollout_rs=seq_mean_k1",
            f"{CORRECTION}.rollout_rs_threshold=0.999_1.001",
            f"{ROLLOUT}.calculate_log_probs=true",
        ),
        there=("rollout_corr/rollout_is_mean",),
    ),
    "bypass_mode": Case((f"{CORRECTION}.bypass_mode=true", f"{ROLLOUT}.calculate_log_probs=true")),
    "torch profiler": Case(
        (
            "global_profiler.tool=torch",
            "global_profiler.steps=[1]",
            "global_profiler.save_path={folder}/profile",
            f"{ACTOR}.profiler.enable=true",
            f"{ACTOR}.profiler.all_ranks=true",
        ),
        files=("profile/**/*.json*",),
    ),
    "prometheus": Case(
        (
            f"{ROLLOUT}.prometheus.enable=true",
            f"{ROLLOUT}.prometheus.file={{folder}}/prometheus.yml",
            f"{ROLLOUT}.disable_log_stats=false",
        )
    ),
    "ppo_epochs": Case((f"{ACTOR}.ppo_epochs=2",), changed=("actor/pg_clipfrac", "actor/grad_norm")),
    "gspo": loss(
        "gspo",
        f"{ACTOR}.loss_agg_mode=seq-mean-token-mean",
        f"{ACTOR}.clip_ratio_low=3e-4",
        f"{ACTOR}.clip_ratio_high=4e-4",
    ),
    "clip_cov": Case(
        (
            f"{ACTOR}.policy_loss.loss_mode=clip_cov",
            f"{ACTOR}.policy_loss.clip_cov_ratio=0.5",
            f"{ACTOR}.policy_loss.clip_cov_lb=0.0",
        )
    ),
    "kl_cov": Case((f"{ACTOR}.policy_loss.loss_mode=kl_cov", f"{ACTOR}.policy_loss.kl_cov_ratio=0.5")),
    "cispo": Case((f"{ACTOR}.policy_loss.loss_mode=cispo",)),
    "gpg": estimator("gpg", f"{ACTOR}.policy_loss.loss_mode=gpg"),
    "sapo": loss("sapo", f"{ACTOR}.tau_pos=2.0"),
    "geo_mean": loss("geo_mean"),
    "dppo_tv": Case((f"{ACTOR}.policy_loss.loss_mode=dppo_tv",)),
    "dro": loss("dro", f"{ACTOR}.policy_loss.dro_beta=0.5"),
    "rloo": estimator("rloo"),
    "reinforce_plus_plus": estimator("reinforce_plus_plus", f"{ALGORITHM}.gamma=0.9"),
    "opo": Case((f"{ALGORITHM}.adv_estimator=opo",)),  # its baseline weighs answers by length, and all have one
    "reinforce_plus_plus_baseline": estimator("reinforce_plus_plus_baseline"),
    "grpo_passk": estimator("grpo_passk"),
    "chunked entropy, shuffled": Case(
        (
            f"{ACTOR}.entropy_from_logits_with_chunking=true",
            f"{ACTOR}.entropy_from_logits_chunk_size=7",
            f"{ACTOR}.entropy_coeff=0.01",
            f"{ACTOR}.shuffle=true",
            f"{ACTOR}.data_loader_seed=7",
        ),
        changed=("actor/grad_norm",),
    ),
    "relift, filtered, fixed": Case(("method=relift", *FILTER, *FIXED, "method.sft.batch_size=2")),
    "relift, padded, virtual pipeline": Case(
        ("method=relift", f"{ENGINE}.pad_to_length=true", *PIPELINE, "method.sft.batch_size=2"), deep=True
    ),
    "sum of a fixed norm, WSD": Case(
        (
            f"{ACTOR}.loss_agg_mode=seq-mean-token-sum-norm",
            f"{ACTOR}.loss_scale_factor=1000",
            f"{OPTIM}.lr_decay_style=WSD",
            f"{OPTIM}.lr_wsd_decay_steps=1",
            f"{OPTIM}.lr_decay_steps=2",
        ),
        changed=("actor/grad_norm",),
    ),
    "dumps": Case(
        (
            "trainer.rollout_data_dir={folder}/rollouts",
            "trainer.log_val_generations=2",
            "trainer.val_before_train=true",
            "data.val_max_samples=8",
            "data.validation_shuffle=true",
            "transfer_queue.metrics.enabled=true",
            "trainer.save_freq=1",
            "trainer.max_actor_ckpt_to_keep=1",
            f"{ACTOR}.checkpoint.save_contents=[model,optimizer,extra,hf_model]",
        ),
        same=UPDATE,
        files=("rollouts/1.jsonl", "rollouts/2.jsonl", "run/global_step_2/actor/**/*.safetensors"),
    ),
    "agent loop": Case(("relift.rollout.batched=false", "reward.num_workers=1")),
}
REWARD = '''"""Right by chance, so that groups have both."""
import zlib


def reward(data_source, solution_str, ground_truth, extra_info):
    return float(zlib.crc32(solution_str.encode()) % 2)
'''


@pytest.fixture(scope="module")
def train(prepared, tmp_path_factory):  # noqa: F811
    """A function that trains with settings in a folder; returns the metrics of every step."""
    folder = tmp_path_factory.mktemp("settings")
    (folder / "reward.py").write_text(REWARD)
    deep = AutoConfig.from_pretrained(prepared / "model", num_hidden_layers=4, layer_types=["full_attention"] * 4)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(deep, dtype=torch.float32).save_pretrained(folder / "deep")
    AutoTokenizer.from_pretrained(prepared / "model").save_pretrained(folder / "deep")
    data = {
        "data.train_files": f"{prepared}/data/train.parquet",
        "data.val_files": f"{prepared}/data/test.parquet",
        "reward.custom_reward_function.path": f"{folder}/reward.py",
        "reward.custom_reward_function.name": "reward",
    }

    def run(case: Case, beside: Path) -> list[dict[str, Any]]:
        own = {"actor_rollout_ref.model.path": f"{folder}/deep" if case.deep else f"{prepared}/model"}
        own |= dict(setting.replace("{folder}", str(beside)).split("=", 1) for setting in case.settings)
        overrides = [f"{key}={value}" for key, value in (BASE | data | own).items()]
        return finish(start("smoke", beside / "run", *overrides), beside / "run", 600)

    return run


@pytest.fixture(scope="module")
def plain(train, tmp_path_factory) -> list[dict[str, Any]]:
    made = train(Case(()), tmp_path_factory.mktemp("plain"))
    assert made[0]["actor/grad_norm"] > 0.0
    return made


@pytest.mark.parametrize("name", CASES)
def test_it_trains_and_is_not_ignored(train, plain, tmp_path, name):
    case = CASES[name]
    made = [record for record in train(case, tmp_path) if record["step"] > 0]  # without the first validation
    assert len(made) == STEPS
    assert all(math.isfinite(value) for record in made for value in record.values() if isinstance(value, float))
    # The learning rate of the first step is 0, so that all second steps have the same answers.
    last, before = made[-1], plain[-1]
    near = partial(pytest.approx, rel=1e-3, abs=1e-6)
    assert [metric for metric in case.changed if last[metric] == near(before[metric])] == []
    assert [metric for metric in case.same if last[metric] != near(before[metric])] == []
    assert [metric for metric in case.there if metric not in last or metric in before] == []
    assert [pattern for pattern in case.files if not any(tmp_path.glob(pattern))] == []
