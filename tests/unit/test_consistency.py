"""Settings that are legal one by one and cannot work together end in one line."""

import re

import pytest

from verl_relift.checks import batch_problems, settings_problems

from .configurations import overridden

ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
ENGINE, OPTIM = f"{ACTOR}.megatron", f"{ACTOR}.optim"
KWARGS = f"{ROLLOUT}.engine_kwargs.vllm"


def lines_of(overrides: str, platform: str = "cpu") -> list[str]:
    with overridden(*overrides.split(), platform=platform) as config:
        return list(settings_problems(config)) or list(batch_problems(config))


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
def test_the_quickstart_is_consistent(platform):
    assert lines_of("", platform) == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        # validation
        (
            f"{ROLLOUT}.val_kwargs.temperature=0 {ROLLOUT}.val_kwargs.n=4",
            r"val_kwargs\.n=4 with .*temperature=0: greedy",
        ),
        (
            f"{ROLLOUT}.val_kwargs.do_sample=false",
            r"do_sample=false with val_kwargs\.temperature=0\.6: .* temperature=0",
        ),
        # lengths
        (f"{ROLLOUT}.max_model_len=95", r"max_model_len=95 must be at least data\.max_prompt_length \+ .* = 96"),
        (f"{ACTOR}.ppo_max_token_len_per_gpu=95", r"must hold the longest sequence, .* = 96 tokens"),
        (f"{ROLLOUT}.log_prob_max_token_len_per_gpu=64", r"log_prob_max_token_len_per_gpu=64 must hold the longest"),
        ("method.demonstrations.max_tokens=20000", r"must hold the longest demonstration, .* = 20032 tokens"),
        ("method.sft.max_token_len_per_gpu=50", r"method\.sft\.max_token_len_per_gpu=50 must hold the longest demonst"),
        (
            f"{ROLLOUT}.max_num_batched_tokens=100 {ROLLOUT}.enable_chunked_prefill=true relift.rollout.seeded=false",
            r"max_num_batched_tokens=100 must be at least max_num_seqs=128",
        ),
        (f"{KWARGS}.num_gpu_blocks_override=0", r"num_gpu_blocks_override=0: blocks of 128 tokens hold less than"),
        (
            f"{KWARGS}.num_gpu_blocks_override=2 +{KWARGS}.block_size=32",
            r"num_gpu_blocks_override=2: blocks of 32 tokens hold less than one sequence",
        ),
        ("transfer_queue.backend.SimpleStorage.total_storage_size=64", r"total_storage_size=64 must be at least 128"),
        # micro-batches
        (
            f"{ACTOR}.use_dynamic_bsz=false",
            r"ppo_micro_batch_size_per_gpu=null must divide the 128 .*; set it to 1 or 2",
        ),
        (
            f"{ACTOR}.use_dynamic_bsz=false {ACTOR}.ppo_micro_batch_size_per_gpu=500",
            r"ppo_micro_batch_size_per_gpu=500 must divide the 128 rollouts of a rank, .*; set it to 128$",
        ),
        (
            f"{ACTOR}.use_dynamic_bsz=false {ACTOR}.ppo_micro_batch_size_per_gpu=7 "
            f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu=8",
            r"ppo_micro_batch_size_per_gpu=7 must divide the 128 rollouts of a rank, .*; set it to 4 or 8",
        ),
        (f"{ROLLOUT}.log_prob_use_dynamic_bsz=false", r"log_prob_use_dynamic_bsz=false must be that of .*actor"),
        # schedules and losses
        (
            f"{ENGINE}.virtual_pipeline_model_parallel_size=2",
            r"virtual_pipeline_model_parallel_size=2 splits pipeline stage",
        ),
        (f"+{ENGINE}.override_transformer_config.hidden_dropout=0.1", r"hidden_dropout=0\.1 must be 0"),
        (f"{OPTIM}.lr_warmup_init=1e-3", r"lr_warmup_init=0\.001 must be at most .*optim\.lr=5e-05"),
        (f"{OPTIM}.lr_decay_style=cosine {OPTIM}.min_lr=1", r"min_lr=1 must be at most .*optim\.lr=5e-05"),
        (f"{OPTIM}.lr_decay_style=WSD", r"lr_decay_style=WSD needs .*lr_wsd_decay_steps"),
        (f"{OPTIM}.lr_decay_steps=5", r"lr_warmup_steps=5 must be below the length of the schedule, 5 steps"),
        (f"{ACTOR}.policy_loss.loss_mode=dro", r"loss_mode=dro needs .*policy_loss\.dro_beta"),
        (
            "global_profiler.tool=torch global_profiler.steps=[1]",
            r"global_profiler\.steps=\[1\] needs .*profiler\.enable",
        ),
        (
            f"{ROLLOUT}.calculate_log_probs=false algorithm.rollout_correction.bypass_mode=true",
            r"rollout_correction\.bypass_mode=true needs .*calculate_log_probs=true",
        ),
        (f"{ROLLOUT}.prometheus.enable=true", r"prometheus\.enable=true needs .*disable_log_stats=false"),
        # the platform
        (f"{ENGINE}.dtype=float16", r"megatron\.dtype=float16 must be float32 or bfloat16 on platform=cpu"),
        (f"{ROLLOUT}.enforce_eager=false", r"enforce_eager=false must be true on platform=cpu"),
        (
            "actor_rollout_ref.model.use_fused_kernels=true relift.speed_patches=false",
            r"use_fused_kernels=true needs relift\.speed_patches=true on platform=cpu: verl's own kernels",
        ),
        (f"{ROLLOUT}.free_cache_engine=true", r"free_cache_engine=true must be false on platform=cpu"),
        (f"{ROLLOUT}.quantization=fp8", r"quantization=fp8 must be null on platform=cpu"),
        (
            f"{ENGINE}.distrib_optim_fully_reshardable_mem_efficient=false",
            r"mem_efficient=false must be true on platform=cpu: the other way gathers by NCCL",
        ),
    ],
)
def test_what_cannot_work_together(overrides, message):
    lines = lines_of(overrides)
    assert len(lines) == 1, lines
    assert re.search(message, lines[0]), lines[0]


def test_fp32_on_gpus():
    lines = lines_of(f"{ENGINE}.dtype=float32", "cuda")
    assert len(lines) == 1 and "must be bfloat16 or float16 on platform=cuda" in lines[0]


@pytest.mark.parametrize(
    "overrides",
    [
        f"{ROLLOUT}.val_kwargs.temperature=0 {ROLLOUT}.val_kwargs.do_sample=false",
        f"{ROLLOUT}.val_kwargs.temperature=0.6 {ROLLOUT}.val_kwargs.n=4",
        f"{OPTIM}.lr_decay_style=WSD {OPTIM}.lr_wsd_decay_steps=10",
        f"{ACTOR}.policy_loss.loss_mode=dro {ACTOR}.policy_loss.dro_beta=0.1",
        f"{ACTOR}.use_dynamic_bsz=false {ACTOR}.ppo_micro_batch_size_per_gpu=8 "
        f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu=8",
    ],
)
def test_what_works_together(overrides):
    assert lines_of(overrides) == []
