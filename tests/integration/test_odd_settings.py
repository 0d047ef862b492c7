"""Odd settings, given to the real command: each ends with status 2 and one line, and Ray never starts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.errors import HydraException

from verl_relift.checks import ConfigurationError
from verl_relift.preflight import check
from verl_relift.quickstart.base_model import build_model, build_tokenizer
from verl_relift.run.composition import Arguments

ACTOR, ROLLOUT, MODEL = "actor_rollout_ref.actor", "actor_rollout_ref.rollout", "actor_rollout_ref.model"
ENGINE, OPTIM, VLLM = f"{ACTOR}.megatron", f"{ACTOR}.optim", f"{ROLLOUT}.engine_kwargs.vllm"
TRANSFORMER = f"{ENGINE}.override_transformer_config"

# Of each kind one that is found where the command begins, and those that need a package, the model or the data.
ODD = (
    "data.train_batch_size=16.5",
    "data.train_batch_size='16 questions'",
    "data.train_batch_size=10000000",
    "data.max_prompt_length=1",
    "data.max_prompt_length=99999999",
    "data.max_response_length=32k",
    "data.max_response_length=[64]",
    "data.train_files=[]",
    "data.train_files=nowhere.parquet",
    "data.train_files=[null]",
    "data.train_files={a:b}",
    "data.val_files=.",
    "data.val_files=/dev/null",
    "data.seed=random",
    "data.shuffle=maybe",
    "data.val_batch_size=-1",
    "data.train_max_samples=3",
    "data.truncation=middle",
    "data.custom_cls.name=Mine",
    "data.apply_chat_template_kwargs=thinking",
    "+data.apply_chat_template_kwargs.enable_thinkin=true",
    "+data.cache_dir=7",
    "+data.sampler.class_path=my.Sampler",
    "data=null",
    f"{MODEL}.path=''",
    f"{MODEL}.path=/dev/null",
    f"{MODEL}.path=[a,b]",
    f"{MODEL}.tokenizer_path=no/such/tokenizer",
    f"{MODEL}.lora.alpha=64",
    f"{MODEL}.lora.merge=true",
    f"+{MODEL}.override_config.num_hidden_layers=2",
    f"{MODEL}.enable_activation_offload=true",
    f"{MODEL}.custom_chat_template='{{% if %}}'",
    f"{MODEL}.tiled_mlp.enabled=true",
    f"{ROLLOUT}.name=trtllm",
    f"{ROLLOUT}.temperature=1e400",
    f"{ROLLOUT}.temperature=-inf",
    f"{ROLLOUT}.top_k=1.5",
    f"{ROLLOUT}.top_p=-0.5",
    f"{ROLLOUT}.n=many",
    f"{ROLLOUT}.n=null",
    f"{ROLLOUT}.val_kwargs.top_k=0",
    f"{ROLLOUT}.val_kwargs.temperature=null",
    f"{ROLLOUT}.val_kwargs=greedy",
    f"{ROLLOUT}.max_model_len=10",
    f"{ROLLOUT}.max_num_batched_tokens=64",
    f"{ROLLOUT}.enable_chunked_prefill=true",
    f"{ROLLOUT}.tensor_model_parallel_size=3",
    f"{ROLLOUT}.data_parallel_size=4",
    f"{ROLLOUT}.expert_parallel_size=2",
    f"{ROLLOUT}.free_cache_engine=true",
    f"{ROLLOUT}.dtype=int8",
    f"{ROLLOUT}.engine_kwargs=fast",
    f"+{VLLM}.kv_cache_dtyp=fp8",
    f"+{VLLM}.max_logprobs=lots",
    f"+{VLLM}.seed=1",
    f"+{ROLLOUT}.stop=[a]",
    f"+{ROLLOUT}.min_p=0.1",
    f"{ROLLOUT}.agent.default_agent_loop=tool_agent",
    f"{ROLLOUT}.limit_images=2",
    f"{ROLLOUT}.skip_tokenizer_init=false",
    f"{ACTOR}.ppo_mini_batch_size=5",
    f"{ACTOR}.ppo_mini_batch_size=32",
    f"{ACTOR}.ppo_max_token_len_per_gpu=32",
    f"{ACTOR}.clip_ratio=0.1",
    f"{ACTOR}.clip_ratio_high=nan",
    f"{ACTOR}.kl_loss_coef=0.01",
    f"{ACTOR}.use_prefix_grouper=true",
    f"{ACTOR}.policy_loss.loss_mode=dro",
    f"{ACTOR}.policy_loss.loss_mode=null",
    f"{ACTOR}.entropy_coeff=-inf",
    f"{ACTOR}.checkpoint.save_contents=all",
    f"+{ACTOR}.checkpoint.mbridge_config.foo=1",
    f"{OPTIM}.lr=null",
    f"{OPTIM}.lr='1e-6 '",
    f"{OPTIM}.betas=0.9",
    f"{OPTIM}.betas=[0.9,0.98,0.99]",
    f"{OPTIM}.lr_warmup_steps=1000000",
    f"{OPTIM}.lr_decay_style=exponential",
    f"{OPTIM}.weight_decay_incr_style=linear",
    f"+{OPTIM}.override_optimizer_config.adam_beta3=0.5",
    f"{ENGINE}.tensor_model_parallel_size=4",
    f"{ENGINE}.tensor_model_parallel_size=1.0",
    f"{ENGINE}.context_parallel_size=2",
    f"{ENGINE}.dtype=bf16",
    f"{ENGINE}.use_dist_checkpointing=true",
    f"+{ENGINE}.overlap_grad_reduce=true",
    f"+{TRANSFORMER}.num_layers_in_first_pipeline_stag=1",
    f"+{TRANSFORMER}.fp8=hybrid",
    f"{TRANSFORMER}.recompute_granularity=partial",
    "algorithm.adv_estimator=null",
    "algorithm.lam=0.95",
    "algorithm.kl_ctrl.type=adaptive",
    "algorithm.rollout_correction.rollout_rs=seq_mean_k9",
    "algorithm.rollout_correction.loss_type=reinforce",
    "algorithm.filter_groups.metric=score",
    "reward.reward_manager.name=dapo",
    "reward.custom_reward_function.path=no_such_file.py",
    "+reward.custom_reward_function.reward_kwargs.thinkng=required",
    "trainer.n_gpus_per_node=-1",
    "trainer.n_gpus_per_node=3",
    "trainer.nnodes=5",
    "trainer.logger=[console,console2]",
    "trainer.logger=null",
    "trainer.total_training_steps=0",
    "trainer.total_epochs=1",
    "trainer.save_freq=often",
    "trainer.val_only=true",
    "trainer.resume_mode=resume_path",
    "trainer.resume_mode=true",
    "trainer.validation_data_dir=/dev/null/x",
    "trainer.project_name=''",
    "trainer.wandb_proxy=http",
    "trainer.v1.sampler.custom_sampler.path=null",
    "trainer=null",
    "critic.strategy=fsdp",
    "distillation.enabled=true",
    "ray_kwargs.ray_init.num_cpus=2",
    "+ray_kwargs.ray_init.dashbord=true",
    "transfer_queue.backend.SimpleStorage.total_storage_size=10",
    "global_profiler.steps=[1,2]",
    "relift.rollout.batched=0",
    "relift.rollout.workers=-2",
    "relift.rollout=null",
    "+relift.rollout.speed=11",
    "method.sft.batch_size=0",
    "method.sft.batch_size=65",
    "method.sft.lr=-0.1",
    "method.sft.optimizer=third",
    "method.demonstrations.source=internet",
    "method.demonstrations.max_tokens=1000000",
    "method.trigger.max_accuracy=1.5",
    "method.schedule.max_updates_per_step=0",
    "method.buffer.capacity=1",
    "method.teacher.temperature=0.5",
    "+method.sft.weight=2",
    "method.name=null",
    "platform=tpu",
    "+model_engin=megatron",
    "model_engine=veomni",
)

# What is named in place of the key: the file, the sum that it is part of, or the replicas whose size it multiplies.
BESIDE = {
    "data.val_files=.": (".: cannot be read as parquet",),
    "data.val_files=/dev/null": ("/dev/null: cannot be read as parquet",),
    "data.max_prompt_length=99999999": ("max_model_len=100000063",),
    f"{ROLLOUT}.data_parallel_size=4": ("vLLM replicas of 8",),
    f"{ENGINE}.tensor_model_parallel_size=4": ("model replicas of 4",),
    "trainer.resume_mode=resume_path": ("trainer.resume_from_path",),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model and data that train."""
    folder = tmp_path_factory.mktemp("odd")
    tokenizer = build_tokenizer()
    model = build_model(len(tokenizer), tokenizer.eos_token_id, tokenizer.pad_token_id, seed=0)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    sizes = ("--train-size", "64", "--eval-size", "8", "--pretrain-size", "16")
    command = [sys.executable, "-m", "data_preprocess.arithmetic", "--output", str(folder), *sizes]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def arguments(folder: Path, run: Path, override: str) -> list[str]:
    """The command's arguments: a configuration that trains, but for one setting."""
    files = [f"data.train_files={folder}/train.parquet", f"data.val_files={folder}/test.parquet"]
    fixed = [*files, f"actor_rollout_ref.model.path={folder}/model", f"trainer.default_local_dir={run}"]
    key = override.lstrip("+~").partition("=")[0]
    others = [setting for setting in fixed if not setting.startswith((f"{key}=", f"{key}."))]
    return ["--config-name", "quickstart", *others, override]


@pytest.mark.slow
@pytest.mark.parametrize("override", ODD)
def test_a_line_or_a_few_say_what_is_wrong(folder: Path, override: str, tmp_path: Path):
    """In this process, as the training command asks before Ray starts."""
    with pytest.raises((ConfigurationError, HydraException)) as error:
        check(Arguments.parse(arguments(folder, tmp_path / "run", override)).compose("cpu"))
    lines = str(error.value).splitlines()
    assert isinstance(error.value, HydraException) or len(lines) <= 6
    # A value that is wrong only beside others may be named by one of them, a file by its path.
    name = override.lstrip("+~").partition("=")[0].rpartition(".")[2]
    said = (name, name.replace("_", "-"), "data.", ".parquet", "model.path", *BESIDE.get(override, ()))
    assert any(word in line for line in lines for word in said), lines


@pytest.mark.slow
@pytest.mark.parametrize("override", ODD[::8])
def test_the_command_ends_with_2_before_ray_starts(folder: Path, override: str, tmp_path: Path):
    result = subprocess.run(
        [sys.executable, "-m", "verl_relift.train", *arguments(folder, tmp_path / "run", override)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "RAY_TMPDIR": str(tmp_path)},
    )
    assert result.returncode == 2, result.stderr[-2000:]
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "ray").exists() and "Started a local Ray instance" not in result.stderr
