"""Tests the arithmetic of planning against cases computed by hand and against transformers."""

import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from verl_relift.plan import flops, hardware, memory, refusals, shapes, tracing
from verl_relift.plan.advice import Budget, changes, fits, largest_token_budget, problems, with_token_budget
from verl_relift.plan.job import Batches, Job, Recompute, Rollout, Training, read
from verl_relift.plan.planner import make_plan
from verl_relift.plan.report import Plan, as_json, show
from verl_relift.plan.shapes import BUILT_IN, UnknownModel
from verl_relift.plan.uncounted import uncounted
from verl_relift.run.composition import compose_config

GIB = 1 << 30
QWEN_7B = BUILT_IN["Qwen/Qwen2.5-Math-7B"]
SMOL = shapes.ModelShape(49152, 576, 1536, 30, 9, 3, 64, True, False, False)  # SmolLM2-135M
TINY = shapes.ModelShape(16000, 384, 1024, 6, 6, 2, 64, False, True, False)


def job(shape=QWEN_7B, cuda=True, **training) -> Job:
    return Job(shape, "test", 1, 8, cuda, Training(**training), Rollout(tensor=2), Batches())


# ---- shapes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("Qwen/Qwen2.5-7B", 7_615_616_512),
        ("Qwen/Qwen2.5-Math-7B", 7_615_616_512),
        ("Qwen/Qwen2.5-Math-1.5B", 1_543_714_304),
        ("meta-llama/Llama-3.1-8B", 8_030_261_248),
    ],
)
def test_parameters_of_published_models(name, parameters):
    assert BUILT_IN[name].parameters == parameters


SHAPES = {
    "qwen2": dict(vocab_size=320, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4),
    "llama": dict(vocab_size=64, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=6),
    "qwen3": dict(vocab_size=64, hidden_size=64, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4),
}


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", SHAPES)
def test_parameters_equal_those_of_transformers(family, tied):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    extra = {"head_dim": 32} if family == "qwen3" else {}
    config = AutoConfig.for_model(family, **SHAPES[family], num_key_value_heads=2, tie_word_embeddings=tied, **extra)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert shapes.from_config(config.to_dict()).parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", ["Qwen/Qwen2.5-Math-1.5B", "meta-llama/Llama-3.1-8B"])
def test_parameters_of_large_models_equal_those_of_transformers(name):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = BUILT_IN[name]
    config = AutoConfig.for_model(
        "llama" if "Llama" in name else "qwen2",
        **{key: getattr(shape, key) for key in (*SHAPES["qwen2"], "num_key_value_heads", "tie_word_embeddings")},
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert shape.parameters == sum(p.numel() for p in model.parameters())


def test_ranks_hold_the_model_and_their_own_norms():
    two = 2 * QWEN_7B.on_rank(tensor=2)
    norms = QWEN_7B.num_hidden_layers * QWEN_7B.layer_replicated + QWEN_7B.hidden_size
    assert two == QWEN_7B.parameters + norms
    stages = sum(QWEN_7B.on_rank(pipeline=4, stage=stage) for stage in range(4))
    assert stages == QWEN_7B.parameters
    tied = BUILT_IN["Qwen/Qwen2.5-Math-1.5B"]
    assert tied.on_rank() == tied.parameters
    assert tied.on_rank(pipeline=2, stage=0) + tied.on_rank(pipeline=2, stage=1) == tied.parameters + tied.embedding


def test_an_unsupported_model_is_named(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mamba"}))
    with pytest.raises(UnknownModel, match=r"config\.json: model_type 'mamba' is not supported"):
        shapes.load(str(tmp_path))
    with pytest.raises(UnknownModel, match=r"the folder has no config\.json"):
        shapes.load(str(tmp_path.parent))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UnknownModel, match="not supported"):
        shapes.load(str(tmp_path))


PREPARE = "python -m data_preprocess.prepare_model --model {} --rope-theta 40000 --max-positions 16384 --output {}"


@pytest.mark.parametrize("base", ["Qwen2.5-Math-7B", "Qwen/Qwen2.5-Math-7B"])
def test_a_missing_folder_has_the_shape_of_its_base_and_more_positions(base, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = tmp_path / "copy"
    made = shapes.Preparation.of_command(PREPARE.format(base, folder))
    shape, source = shapes.load(str(folder), made)
    assert shape == QWEN_7B and shape.positions == 16384
    assert source.endswith("16384 positions")
    assert str(made) == f"{folder} is not there yet; planned as what prepare_model makes of {base}"
    with pytest.raises(UnknownModel, match="no such folder"):
        shapes.load(str(tmp_path / "another"), made)
    # What is there counts.
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(shapes.to_config(SMOL)))
    assert shapes.load(str(folder), made) == (SMOL, str(folder / "config.json"))


def test_the_command_that_prepares_a_model_is_read_in_either_form():
    command = PREPARE.format("base", "folder").replace(" 16384", "=16384")
    assert shapes.Preparation.of_command(command) == shapes.Preparation("folder", "base", 16384)
    chat = "python -m data_preprocess.prepare_model --model base --chat-template think --link --output folder"
    assert shapes.Preparation.of_command(chat) == shapes.Preparation("folder", "base", None)
    with pytest.raises(ValueError, match=r"no command of data_preprocess\.prepare_model"):
        shapes.Preparation.of_command("python -m other --model base --output folder")


# ---- memory ----------------------------------------------------------------------------------------------------------


def test_weights_gradients_and_optimizer_by_hand():
    """Qwen2.5-7B, TP2, DP4, bf16: 3,807,910,400 parameters a rank."""
    training = Training(tensor=2, data=4, separate_optimizer=True)
    count = 3_807_910_400
    assert memory.weights(QWEN_7B, training, 0) == 2 * count
    assert memory.gradients(QWEN_7B, training, 0) == 4 * count
    assert memory.optimizer(QWEN_7B, training, 0) == 3 * count  # 12 bytes over 4 ranks
    assert memory.second_optimizer(QWEN_7B, training, 0) == 2 * count
    assert memory.optimizer(QWEN_7B, replace(training, element_bytes=4), 0) == 2 * count


def test_activations_of_one_layer_by_hand():
    # Transformer Engine: 4 x 3584 / 2 + (4608 + 3584 + 512 + 3584 + 3 x 18944) / 2
    assert memory.activation_elements(QWEN_7B, Training(tensor=2)) == 7168 + 34560
    # Without sequence parallelism every rank holds what the norms keep.
    whole = Training(tensor=2, sequence_parallel=False)
    assert memory.activation_elements(QWEN_7B, whole) == 14336 + 34560
    # Megatron's own rotary embedding keeps cosines and sines for queries and keys in every layer.
    assert memory.activation_elements(QWEN_7B, Training(tensor=2, shared_rotary=False)) == 7168 + 34560 + 512
    # Without its fused SwiGLU two more values of the feed-forward layer.
    apart = Training(tensor=2, fused_activation=False)
    assert memory.activation_elements(QWEN_7B, apart) == 7168 + 34560 + 18944


def test_activations_of_one_layer_on_a_cpu_by_hand():
    training = Training(cuda=False, sequence_parallel=False, transformer_engine=False, element_bytes=4)
    # Two norms, projection, rotated queries and keys, three outputs of the attention, and the feed-forward layer.
    fp32 = 6 * 576 + (576 + 2 * 192) + 576 + 192 + 2 * 576 + 3 * 1536
    assert memory.activation_elements(SMOL, training) == fp32
    assert memory.activation_elements(SMOL, replace(training, element_bytes=2)) == fp32 + 4 * 576


def test_logits_in_blocks_by_hand():
    """16,384 tokens of Qwen2.5-7B, TP2: 76,032 rows of 3,584 on a rank, 256 MiB of logits at a time."""
    block, hidden, rows = 256 << 20, 16384 * 3584, 76032 * 3584
    training = Training(tensor=2)
    gathered = 2 * hidden
    # Logits, their exponentials and a block of gradients in bf16; a copy of the hidden states, and the gradients of
    # hidden states and weights.
    update = gathered + 2 * block + block // 2 + (2 + 4) * hidden + 2 * rows
    assert memory.logits(QWEN_7B, training, 16384) == update
    assert memory.logits(QWEN_7B, training, 16384, gradient=False) == gathered + 2 * block
    apart = replace(training, fused_logits=False)
    assert memory.logits(QWEN_7B, apart, 16384) == 12 * 16384 * 76032
    assert update < 0.25 * memory.logits(QWEN_7B, apart, 16384)


def test_logits_in_blocks_on_a_cpu_by_hand():
    """4,096 tokens of SmolLM2-135M: 49,152 rows of 576."""
    block, hidden, rows = 32 << 20, 4096 * 576, 49152 * 576
    training = Training(cuda=False, sequence_parallel=False, element_bytes=4)
    assert memory.logits(SMOL, training, 4096) == 2 * block + (4 + 4) * hidden + 4 * rows
    assert memory.logits(SMOL, training, 128) == 16 * 128 * 49152  # no more than a block: as without
    bf16 = replace(training, element_bytes=2)
    # The forward pass multiplies in fp32.
    assert memory.logits(SMOL, bf16, 4096) == 2 * block + max(4 * rows, block // 2 + (2 + 4) * hidden + 2 * rows)


def test_full_recomputation_keeps_one_hidden_state_a_layer():
    training = Training(tensor=2, recompute=Recompute("full", (), "uniform", 1))
    kept = (28 + 3) * 3584 // 2 + 3584  # layers' inputs and the final norm, divided; the buffer for a whole input
    assert memory.activations(QWEN_7B, training, 1000, 0) == kept * 1000 * 2


def test_the_first_pipeline_stage_keeps_every_micro_batch_in_flight():
    training = Training(pipeline=4, sequence_parallel=False)
    first, last = (memory.activations(QWEN_7B, training, 1000, stage) for stage in (0, 3))
    final_norm = 3 * QWEN_7B.hidden_size * 1000 * 2
    # The last stage has the gradients of a layer where it had the logits.
    backward = (2 * 18944 + 3 * 3584) * 1000 * 2
    assert first == 4 * (last - final_norm) + backward


def test_host_memory_of_a_checkpoint_by_hand():
    """Qwen2.5-7B, TP2, DP4: 3,807,910,400 parameters a rank, 24 bytes each, and 12 of a quarter of them."""
    count = 3_807_910_400
    everywhere = job(tensor=2, data=4)
    assert memory.checkpoint_on_host(everywhere, 0, first=False) == 27 * count
    assert memory.checkpoint_on_node(everywhere) == 8 * 27 * count
    assert memory.checkpoint_on_device(everywhere, 0) == 5 * count
    # One rank of each data-parallel group gathers for all: two of the eight. A resume takes more: all of it on each.
    one = job(tensor=2, data=4, gathered_on_one_rank=True)
    saving = [memory.checkpoint_on_host(one, 0, first) for first in (True, False)]
    assert saving == [27 * count, 3 * count] and 2 * saving[0] + 6 * saving[1] == 72 * count
    assert memory.resume_on_host(one, 0) == 12 * count
    assert memory.checkpoint_on_node(one) == 8 * 12 * count
    four = job(tensor=4, data=2, gathered_on_one_rank=True)
    quarter = QWEN_7B.on_rank(4, 1, 0)
    assert memory.checkpoint_on_node(four) == 4 * 30 * quarter + 4 * 6 * quarter > 8 * 12 * quarter
    # The writer's copies take no less than what was gathered.
    wide = job(tensor=2, data=32, gathered_on_one_rank=True)
    assert memory.checkpoint_on_host(wide, 0, first=True) == 24 * count + 12 * count // 32
    # Every rank writes its share.
    assert memory.checkpoint_on_node(job(tensor=2, data=4, gathered_checkpoint=False)) == 8 * 3 * count
    assert memory.checkpoint_on_node(job(tensor=2, data=4, saves=False)) == 0


def test_stages_that_share_embeddings_gather_them_by_themselves():
    """Qwen2.5-Math-1.5B with two stages: the embedding is smaller than the layers of a stage."""
    tied = BUILT_IN["Qwen/Qwen2.5-Math-1.5B"]
    planned = job(tied, pipeline=2, data=4)
    layers = tied.on_rank(1, 2, 0) - tied.embedding
    assert memory.checkpoint_on_device(planned, 0) == 5 * layers
    assert memory.checkpoint_on_host(planned, 0, first=True) == 12 * (layers + tied.embedding) + 15 * layers


def test_gathering_for_the_weights_way_to_vllm():
    largest = 2 * QWEN_7B.embedding
    bucket = 2048 << 20
    assert memory.sync_buckets(job()) == bucket
    assert memory.sync_buckets(job(tensor=4)) == bucket + 2 * largest
    assert memory.sync_buckets(job(tensor=4, pipeline=2)) == bucket + 2 * largest + largest // 4


def test_a_checkpoint_on_a_cpu_by_hand():
    """SmolLM2-135M in bf16 on two data-parallel ranks: the first gathers 30 bytes a parameter, the other sends 6."""
    training = Training(
        data=2, cuda=False, transformer_engine=False, sequence_parallel=False, token_budget=640, sft_token_budget=640,
        gathered_on_one_rank=True,
    )  # fmt: skip
    batches = Batches(8, 4, 8, demonstrations=8, demonstration_tokens=128, prompt_tokens=192, response_tokens=128)
    rollout = Rollout(sleeps=False, bucket_bytes=128 << 20, blocks=49)
    planned = Job(SMOL, "test", 1, 2, False, training, rollout, batches)
    count = 134_515_008
    phases = {phase.name: phase for phase in memory.phases(planned, 0)}
    saving = phases["checkpoint"].parts
    assert saving["checkpoint"] == 36 * count
    assert saving.keys() == {*phases["rollout"].parts, "checkpoint"}
    assert phases["checkpoint"].total == phases["rollout"].total + 36 * count
    # It is the peak, so that a machine which is only large enough for updates is refused before the run.
    assert problems(planned, Budget.of_machine(phases["checkpoint"].total)) == []
    (problem,) = problems(planned, Budget.of_machine(phases["RL update"].total))
    assert problem.startswith("checkpoint needs ")
    without = replace(planned, training=replace(training, saves=False))
    assert "checkpoint" not in {phase.name for phase in memory.phases(without, 0)}


def test_kv_cache_by_hand():
    """2 (keys and values) x 28 layers x 2 heads x 128 x 2 bytes on each of two ranks."""
    planned = job()
    assert memory.kv_bytes_per_token(planned) == 28_672
    share = memory.kv_cache(planned, 80 * GIB)
    assert share == 40 * GIB - memory.vllm_weights(planned) - memory.vllm_working(planned)


def test_offloading_empties_the_rollout_phase_and_nothing_else():
    plain = {phase.name: phase for phase in memory.phases(job(tensor=2, data=4), 80 * GIB)}
    offloaded = {
        phase.name: phase
        for phase in memory.phases(job(tensor=2, data=4, param_offload=True, optimizer_offload=True), 80 * GIB)
    }
    assert offloaded["rollout"].parts["weights"] == offloaded["rollout"].parts["optimizer"] == 0
    assert offloaded["RL update"].total == plain["RL update"].total
    assert plain["rollout"].total - offloaded["rollout"].total == 9 * 3_807_910_400


def test_a_micro_batch_is_no_larger_than_what_there_is():
    small = replace(job(), batches=Batches(mini_batch=4, rollouts=2, prompt_tokens=10, response_tokens=20))
    assert small.tokens(16384, "update") == 8 * 30
    assert job().tokens(16384, "update") == 16384


def test_a_resume_that_the_host_memory_is_too_small_for_is_called_one():
    planned = job(tensor=2, data=4, gathered_on_one_rank=True)
    assert memory.resume_on_node(planned) > memory.save_on_node(planned)
    (problem,) = problems(planned, Budget.of_gpu(140 * GIB, host=300 * GIB))
    assert problem.startswith("trainer.save_freq: resuming from a checkpoint takes 340.5 GiB of host memory")
    # With twice as many tensor-parallel ranks half as many ranks have the same parameters.
    assert problem.endswith(", or actor_rollout_ref.actor.megatron.tensor_model_parallel_size=4")


# ---- work ------------------------------------------------------------------------------------------------------------


def test_a_pipeline_waits_while_it_fills_and_empties():
    """A pass of m micro-batches over p stages lasts as long as m + p - 1 micro-batches of one stage."""
    gpu = hardware.KNOWN["h100"]
    flat, deep = job(tensor=4, data=2), job(tensor=1, pipeline=4, data=2)
    assert flat.sequences_per_rank("update") == 64 * 8 // 2
    micro_batches = 64 * 8 // 2 * (flat.batches.prompt_tokens / 2 + 1000) / flat.training.token_budget
    update = [
        next(work.seconds for work in flops.step(one, gpu, 1000) if work.name == "RL update") for one in (flat, deep)
    ]
    assert update[1] / update[0] == pytest.approx((micro_batches + 3) / micro_batches)


def test_flops_by_hand():
    """Two operations per weight and token; attention adds 4 x layers x query size x context."""
    shape = shapes.ModelShape(100, 8, 16, 2, 2, 1, 4, False, False, False)
    matrices = 2 * (8 * 8 * 2 + 8 * 4 * 2 + 3 * 8 * 16) + 100 * 8
    assert flops.forward_flops(shape, 10, 5) == 10 * (2 * matrices + 4 * 2 * 8 * 5)


def test_an_update_is_three_forward_passes_and_four_with_recomputation():
    gpu = hardware.KNOWN["h100"]
    plain = {work.name: work for work in flops.step(job(), gpu, 1000)}
    again = {work.name: work for work in flops.step(job(recompute=Recompute("full")), gpu, 1000)}
    assert plain["RL update"].flops == 3 * plain["old log-probs"].flops
    assert again["RL update"].flops == 4 * plain["old log-probs"].flops
    assert plain["RL update"].seconds == pytest.approx(plain["RL update"].flops / (8 * 989e12 * flops.MFU_UPDATE))
    unknown = hardware.Accelerator("some GPU", 80 * GIB)
    assert all(work.seconds is None for work in flops.step(job(), unknown, 1000))


def test_retries_cost_a_rollout_each_at_most():
    gpu = hardware.KNOWN["h100"]
    retried = replace(job(), batches=replace(job().batches, retries=3))
    first, again, *rest = flops.step(retried, gpu, 1000)
    assert again.name == "asked again, at most" and first == flops.step(job(), gpu, 1000)[0]
    assert (again.tokens, again.flops, again.seconds) == (3 * first.tokens, 3 * first.flops, 3 * first.seconds)
    assert rest == flops.step(job(), gpu, 1000)[1:]


# ---- verdict and advice ----------------------------------------------------------------------------------------------


def test_the_largest_token_budget_fits_and_the_next_does_not():
    planned, budget = job(tensor=2, data=4), Budget.of_gpu(80 * GIB)
    best = largest_token_budget(planned, budget)
    assert fits(with_token_budget(planned, best), budget)
    assert not fits(with_token_budget(planned, best + 512), budget)


def test_changes_make_it_fit():
    planned, budget = job(tensor=2, data=4), Budget.of_gpu(40 * GIB)
    assert not fits(planned, budget)
    steps = changes(planned, budget)
    assert steps
    assert fits(steps[-1].job, budget), problems(steps[-1].job, budget)


@pytest.mark.parametrize(
    ("host", "override"),
    [
        (400, "actor_rollout_ref.actor.megatron.distrib_optim_fully_reshardable_mem_efficient=true"),
        (200, "actor_rollout_ref.actor.megatron.dist_ckpt_optim_fully_reshardable=false"),
    ],
)
def test_a_checkpoint_that_the_host_memory_is_too_small_for(host, override):
    """766 GiB are needed on a node, 340 with one rank that gathers, 85 without gathering."""
    planned, budget = job(tensor=2, data=4), Budget.of_gpu(140 * GIB, host=host * GIB)
    (problem,) = problems(planned, budget)
    assert problem.startswith("trainer.save_freq: saving a checkpoint takes 766.0 GiB of host memory on a node")
    assert problem.endswith(f"set {override}")
    (step,) = changes(planned, budget)
    assert step.overrides == (override,)
    assert fits(step.job, budget)


def test_a_checkpoint_that_no_way_of_saving_makes_fit():
    planned, budget = job(tensor=2, data=4), Budget.of_gpu(140 * GIB, host=50 * GIB)
    assert problems(planned, budget)[0].endswith("available; use more nodes")
    assert not [step for step in changes(planned, budget) if "reshardable" in step.overrides[0]]


def test_changes_that_are_not_enough_are_not_claimed_to_be():
    budget = Budget.of_gpu(8 * GIB)
    planned = replace(job(tensor=2, data=4), gpus_per_node=2)
    steps = changes(planned, budget)
    assert not steps or not fits(steps[-1].job, budget)


def test_a_micro_batch_must_hold_the_longest_sequence():
    short = job(token_budget=4096, sft_token_budget=4096, log_prob_token_budget=16384)
    found = problems(short, Budget.of_gpu(1000 * GIB))
    assert found
    assert "ppo_max_token_len_per_gpu=4096 x context_parallel_size=1 is less than the longest" in found[0]
    assert not problems(replace(short, training=replace(short.training, context=4)), Budget.of_gpu(1000 * GIB))


def smoke_model(folder) -> str:
    """A model of the size of `verl_relift.quickstart.random_model`."""
    config = dict(model_type="qwen2", vocab_size=320, hidden_size=128, intermediate_size=256, num_hidden_layers=2,
                  num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=16384,
                  architectures=["Qwen2ForCausalLM"])  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return f"actor_rollout_ref.model.path={folder}"


@pytest.mark.parametrize(
    ("gib", "fix"),
    [
        # Two ranks: processes of 4.5 GiB.
        (3.0, r"no change of those that plan follows is enough: use a machine with at least [56] GiB available; the "
              r"processes of one rank alone take 3\.5 GiB, which no setting lowers"),
        (4.0, r"  1\. one process for training and one for vLLM:"),
    ],
)  # fmt: skip
def test_advice_for_a_cpu_names_what_helps_there(gib, fix, tmp_path):
    config = compose_config("smoke", None, [smoke_model(tmp_path)], "cpu")
    plan = make_plan(config, None, None, machine_memory=int(gib * GIB))
    said = "\n".join(lines_of(plan))
    assert re.search(f"^{fix}$", said, re.MULTILINE), said
    assert not re.search("GPU|recompute|verl_relift.plan", said[said.index("does not fit") :])
    if plan.steps:
        changed = [override for step in plan.steps for override in step.overrides]
        again = compose_config("smoke", None, [smoke_model(tmp_path), *changed], "cpu")
        assert make_plan(again, None, None, machine_memory=int(gib * GIB)).fits


def test_recomputation_is_advised_on_a_cpu_where_activations_dominate():
    """SmolLM2-135M with the longest sequences of a micro-batch: nothing else lowers its peak enough."""
    training = Training(cuda=False, transformer_engine=False, sequence_parallel=False, element_bytes=4, saves=False,
                        token_budget=4096, sft_token_budget=4096)  # fmt: skip
    batches = Batches(8, 4, 8, demonstrations=8, demonstration_tokens=3072, prompt_tokens=1024, response_tokens=3072)
    planned = Job(SMOL, "test", 1, 1, False, training, Rollout(sleeps=False, bucket_bytes=128 << 20), batches)
    whole = max(phase.total for phase in Budget.of_machine(0).phases(planned))
    budget = Budget.of_machine(int(whole * 0.7))
    (step,) = changes(planned, budget)
    assert step.overrides[0].endswith("recompute_granularity=full")
    assert fits(step.job, budget)


@pytest.mark.parametrize(
    ("available", "whole", "fix"),
    [(3.0, 4.0, "; no change of those that plan follows is enough: use a machine with at least 5 GiB available; the "
           "processes of one rank alone take 3.5 GiB, which no setting lowers"),
     (4.0, 4.5, "; `python -m verl_relift.plan` with the same arguments tells what to change"),
     (4.0, 23.5, "; other programs have the rest of its 23.5 GiB: end them, or wait")],
)  # fmt: skip
def test_training_sends_to_plan_only_where_plan_knows_a_way(available, whole, fix, tmp_path, monkeypatch):
    monkeypatch.setattr(hardware, "whole_memory", lambda: int(whole * GIB))
    monkeypatch.setattr(hardware, "available_memory", lambda: int(available * GIB))
    (line,) = refusals(compose_config("smoke", None, [smoke_model(tmp_path)], "cpu"))
    assert line.endswith(fix)


# ---- with configurations ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "relift.speed_patches=false actor_rollout_ref.model.use_fused_kernels=true",
            "use_fused_kernels=true: --trace cannot run verl's Triton kernels",
        ),
        ("actor_rollout_ref.model.use_remove_padding=false", "--trace follows packed sequences only"),
        ("actor_rollout_ref.actor.use_dynamic_bsz=false", "--trace follows token budgets only"),
        (
            "actor_rollout_ref.actor.megatron.virtual_pipeline_model_parallel_size=2",
            "virtual_pipeline_model_parallel_size: --trace follows stages of one chunk only",
        ),
        (
            "+actor_rollout_ref.actor.megatron.override_transformer_config.apply_rope_fusion=true",
            "apply_rope_fusion: --trace has no stand-in for its kernels",
        ),
        ("actor_rollout_ref.model.lora.rank=8", "lora.rank=8: --trace follows full training only"),
        (
            "+actor_rollout_ref.actor.optim.override_optimizer_config.optimizer_cpu_offload=true",
            "override_optimizer_config.optimizer_cpu_offload: not traced",
        ),
    ],
)
def test_what_a_trace_cannot_follow_is_named(override, message):
    (problem,) = tracing.unsupported(compose_config("relift", None, override.split(), "cuda"))
    assert message in problem
    assert problem.endswith("leave out --trace")


def test_a_trace_follows_the_default():
    assert list(tracing.unsupported(compose_config("relift", None, [], "cuda"))) == []


def test_a_configuration_that_is_not_traced_ends_with_one_line_and_2():
    triton = ("relift.speed_patches=false", "actor_rollout_ref.model.use_fused_kernels=true")
    answer = run(*SEVEN_B, "--trace", *triton)
    assert answer.returncode == 2
    (line,) = answer.stderr.splitlines()
    assert line.startswith("actor_rollout_ref.model.use_fused_kernels=true: --trace cannot run verl's Triton kernels")
    assert answer.stdout == ""


def test_the_same_configuration_as_training():
    """`train` and `plan` compose the same configuration from the same arguments."""
    overrides = ["data.train_batch_size=96", "actor_rollout_ref.actor.ppo_mini_batch_size=48", "trainer.nnodes=3"]
    shown = subprocess.run(
        [
            sys.executable,
            "-m",
            "verl_relift.train",
            "--config-name",
            "quickstart",
            "--cfg",
            "job",
            "platform=cpu",
            *overrides,
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    ).stdout
    from omegaconf import OmegaConf

    composed = compose_config("quickstart", None, overrides, "cpu")
    assert OmegaConf.to_container(composed) == OmegaConf.to_container(OmegaConf.create(shown))


def test_values_come_from_the_configuration():
    config = compose_config(
        "relift",
        None,
        [
            "actor_rollout_ref.model.path=Qwen/Qwen2.5-7B",
            "trainer.n_gpus_per_node=8",
            "trainer.nnodes=2",
            "actor_rollout_ref.actor.megatron.pipeline_model_parallel_size=2",
            "actor_rollout_ref.actor.megatron.optimizer_offload=true",
            "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=10240",
            "method.sft.optimizer=separate",
            "method.sft.max_token_len_per_gpu=12288",
        ],
        "cuda",
    )
    planned = read(config, transformer_engine=True)
    training = planned.training
    assert (training.tensor, training.pipeline, training.data) == (2, 2, 4)
    assert (training.token_budget, training.log_prob_token_budget, training.sft_token_budget) == (10240, 10240, 12288)
    assert training.optimizer_offload
    assert training.separate_optimizer
    assert training.transformer_engine
    assert planned.rollout.max_model_len == 9216
    assert planned.batches.longest == 9216


def test_refusals_against_this_machine(tmp_path):
    """On CPU a run must fit the available memory; an unknown model is not rejected."""
    config = {"model_type": "llama", "vocab_size": 320000, "hidden_size": 8192, "intermediate_size": 28672}
    config |= {"num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8}
    (tmp_path / "config.json").write_text(json.dumps(config))
    overrides = [f"actor_rollout_ref.model.path={tmp_path}"]
    found = refusals(compose_config("relift", None, overrides, "cpu"))
    assert any("needs" in line and "GiB" in line for line in found)
    assert any("update_weights_bucket_megabytes=64" in line for line in found)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mamba"}))
    assert refusals(compose_config("relift", None, overrides, "cpu")) == []


@pytest.mark.parametrize(("dtype", "measured"), [("bfloat16", 17.86e9), ("float32", 17.6e9)])
def test_the_peak_of_a_pretrained_model_on_a_cpu_is_within_ten_percent(tmp_path, dtype, measured):
    """Of all processes, at the save of a checkpoint (record of 2026-11-27: bf16 against fp32, 2 cores)."""
    config = {"model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536}
    config |= {"num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3}
    (tmp_path / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    overrides = [f"actor_rollout_ref.model.path={tmp_path}", f"actor_rollout_ref.actor.megatron.dtype={dtype}"]
    overrides.append(f"actor_rollout_ref.rollout.dtype={dtype}")
    planned = read(compose_config("pretrained", None, overrides, "cpu"))
    worst = max(memory.phases(planned, 0), key=lambda phase: phase.total)
    assert worst.name == "checkpoint" and worst.total == pytest.approx(measured, rel=0.1)


def test_without_a_gpu_here_a_cuda_run_is_not_refused(monkeypatch):
    monkeypatch.setattr(hardware, "visible_gpu", lambda: None)
    config = compose_config("relift", None, ["actor_rollout_ref.model.path=Qwen/Qwen2.5-7B"], "cuda")
    assert refusals(config) == []


def test_a_gpu_is_read_from_nvidia_smi(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H100 80GB HBM3, 81559'\necho 'NVIDIA A10, 23028'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert hardware.visible_gpu() == hardware.Accelerator("NVIDIA A10", 23028 << 20)


def run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "verl_relift.plan", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


SEVEN_B = ("--gpu", "h100", "actor_rollout_ref.model.path=Qwen/Qwen2.5-7B", "trainer.n_gpus_per_node=8")


def test_7b_with_two_ranks_and_16384_tokens_fits_80_gb_without_recomputation():
    answer = run(*SEVEN_B, "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=16384", "--json")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert json.loads(answer.stdout)["fits"]


def test_the_command_line_refuses_and_accepts():
    too_large = run(*SEVEN_B, "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=32768", "--json")
    assert too_large.returncode == 1, too_large.stderr
    answer = json.loads(too_large.stdout)
    assert not answer["fits"]
    assert answer["changes_suffice"]
    overrides = [override for change in answer["changes"] for override in change["overrides"]]
    accepted = run(*SEVEN_B, "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=32768", *overrides)
    assert accepted.returncode == 0, accepted.stdout
    assert "fits" in accepted.stdout
    assert "built-in shape of Qwen/Qwen2.5-7B" in accepted.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--gpu", "h100", "actor_rollout_ref.model.path=nowhere/at/all"),
            "rejected: actor_rollout_ref.model.path=nowhere/at/all: no such folder; give a",
        ),
        (("--gpu", "h100", "no.such.key=1"), "rejected: no.such.key: there is no such key; "),
        (("--gpu", "H100", "data.train_bach_size=8"), "did you mean data.train_batch_size?"),
        (("--gpu", "h101"), "'h101' is not known; did you mean h100"),
        (("--gpu", "h100", "nonsense"), "rejected: nonsense: must be key=value"),
        (("--gpu", "h100", "method=lufy"), "rejected: method=lufy: there is no such method; did you mean luffy?"),
        (("--gpu", "h100", "trainer.logger=[tensorboard,", "wandb]"), '"trainer.logger=[tensorboard, wandb]"'),
        (("--gpu", "h100", "data.max_response_length=8k"), "rejected: data.max_response_length=8k must be a whole"),
        ((*SEVEN_B, "method=grpo", "data.max_response_length=8k"), "rejected: data.max_response_length=8k must be"),
        ((*SEVEN_B, "data.train_batch_size=abc", "trainer.save_freq=x"), "rejected: trainer.save_freq=x must be"),
        (
            (*SEVEN_B, "method=sft_then_rl", "method.then.overrides=['data.seed=x']"),
            "rejected: stage rl: data.seed=x must be",
        ),
        (("--config-name", "missing"), "missing"),
    ],
)
def test_invalid_arguments_end_with_2(arguments, message):
    answer = run(*arguments)
    assert answer.returncode == 2
    assert message in answer.stderr
    assert "Traceback" not in answer.stderr


def test_the_seconds_of_a_step_are_the_sum_of_its_stages():
    job_ = job()
    plan = Plan(job_, Budget.of_gpu(80 * GIB), hardware.KNOWN["h100"], 4096.0, [], None, [])
    console = Console(record=True, width=140, file=io.StringIO())
    show(plan, console)
    [total] = re.findall(r"^\W*sum\W+([\d.]+)\W*$", console.export_text(), re.MULTILINE)
    seconds = [stage.seconds for stage in flops.step(job_, plan.accelerator, 4096.0)]
    assert len(seconds) > 2 and float(total) == pytest.approx(sum(seconds), rel=0.01)


def lines_of(plan: Plan) -> list[str]:
    console = Console(record=True, width=140, file=io.StringIO())
    show(plan, console)
    return console.export_text().splitlines()


@pytest.mark.parametrize(
    ("overrides", "kept", "line"),
    [
        ([], 10, "99.3 GiB each, 10 kept (all, trainer.max_actor_ckpt_to_keep=null): 993.0 GiB on disk"),
        (["trainer.max_actor_ckpt_to_keep=2"], 2,
         "99.3 GiB each, 2 kept (trainer.max_actor_ckpt_to_keep=2): 198.6 GiB on disk and room for one more while it "
         "saves"),
        # Steps 200, 400 and the last one.
        (["trainer.save_freq=200"], 3,
         "99.3 GiB each, 3 kept (all, trainer.max_actor_ckpt_to_keep=null): 297.9 GiB on disk"),
        (["trainer.total_training_steps=null"], None, "99.3 GiB each, all kept (trainer.max_actor_ckpt_to_keep=null)"),
        (["trainer.save_freq=-1"], 0, "trainer.save_freq=-1, none is due; SIGUSR1 still saves one, of 99.3 GiB"),
    ],
)  # fmt: skip
def test_a_run_has_a_length_and_its_checkpoints_a_size(overrides, kept, line, monkeypatch):
    """7,615,616,512 parameters x (2 + 12) bytes are 99.3 GiB."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = ["actor_rollout_ref.model.path=Qwen/Qwen2.5-7B", "trainer.n_gpus_per_node=8"]
    plan = make_plan(compose_config("relift", None, model + overrides, "cuda"), hardware.KNOWN["h100"], None, True)
    answer, said = as_json(plan), lines_of(plan)
    steps = None if "trainer.total_training_steps=null" in overrides else 500
    step = sum(stage["seconds"] for stage in answer["work"])
    assert answer["run"] == {"steps": steps, "seconds": steps and pytest.approx(500 * step)}
    assert answer["checkpoints"]["bytes"] == 14 * 7_615_616_512 and answer["checkpoints"]["kept"] == kept
    assert [one for one in said if one.startswith("checkpoints: ")] == [f"checkpoints: {line}"]
    hours = f"500 steps: {500 * step / 3600:.1f} h, without validations and saves"
    assert [one for one in said if "steps: " in one] == ([hours] if steps else [])


def test_the_size_of_a_checkpoint_is_that_of_one_that_a_run_on_a_cpu_wrote():
    """304,256 parameters in fp32: 1,219,776 bytes of weights and 3,807,195 of the optimizer, headers included."""
    shape = shapes.ModelShape(32, 128, 256, 2, 4, 2, 32, False, True, False)
    assert shape.parameters == 304_256
    planned = job(shape, cuda=False, element_bytes=4)
    assert memory.checkpoint_on_disk(planned) == pytest.approx(1_219_776 + 3_807_195, rel=0.04)
    assert memory.checkpoint_on_disk(job(shape, separate_optimizer=True)) == 26 * 304_256


OPTIMIZER = "actor_rollout_ref.actor.optim.override_optimizer_config"
TRANSFORMER = "actor_rollout_ref.actor.megatron.override_transformer_config"
DDP = "actor_rollout_ref.actor.megatron.override_ddp_config"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (f"+{OPTIMIZER}.optimizer_cpu_offload=true",
         f"{OPTIMIZER}.optimizer_cpu_offload=true (Megatron moves optimizer_offload_fraction of the optimizer, by "
         "default 0: nothing)"),
        (f"+{OPTIMIZER}.optimizer_cpu_offload=true +{OPTIMIZER}.optimizer_offload_fraction=0.5",
         f"{OPTIMIZER}.optimizer_cpu_offload=true"),
        (f"+{OPTIMIZER}.optimizer_cpu_offload=false", None),
        (f"+{OPTIMIZER}.adam_eps=1e-7", None),
        (f"+{DDP}.grad_reduce_in_fp32=false", f"{DDP}.grad_reduce_in_fp32=false"),
        (f"+{DDP}.overlap_grad_reduce=true", None),
        (f"+{DDP}.grad_reduce_in_fp32=true", None),
        (f"+{TRANSFORMER}.apply_rope_fusion=true", f"{TRANSFORMER}.apply_rope_fusion=true"),
        (f"+{TRANSFORMER}.cpu_offloading=true", f"{TRANSFORMER}.cpu_offloading=true"),
        (f"{TRANSFORMER}.recompute_granularity=full {TRANSFORMER}.recompute_method=uniform "
         f"{TRANSFORMER}.recompute_num_layers=1", None),
        ("actor_rollout_ref.actor.optim.use_precision_aware_optimizer=true",
         "actor_rollout_ref.actor.optim.use_precision_aware_optimizer=true"),
        ("actor_rollout_ref.actor.use_dynamic_bsz=false actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=1 "
         "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=1",
         "actor_rollout_ref.actor.use_dynamic_bsz=false"),
        ("actor_rollout_ref.rollout.quantization=fp8", "actor_rollout_ref.rollout.quantization=fp8"),
        ("+actor_rollout_ref.rollout.engine_kwargs.vllm.kv_cache_dtype=fp8",
         "actor_rollout_ref.rollout.engine_kwargs.vllm.kv_cache_dtype=fp8"),
    ],
)  # fmt: skip
def test_a_setting_that_the_arithmetic_does_not_follow_is_named(override, said, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    overrides = ["actor_rollout_ref.model.path=Qwen/Qwen2.5-7B", *override.split()]
    plan = make_plan(compose_config("relift", None, overrides, "cuda"), hardware.KNOWN["h100"], None, True)
    assert plan.uncounted[:1] == ([said] if said else [])
    assert as_json(plan)["not_counted"] == plan.uncounted
    lines = [line for line in lines_of(plan) if line.startswith("plan does not know ")]
    assert lines == [f"plan does not know {setting}: its figures are without it" for setting in plan.uncounted]


@pytest.mark.parametrize("name", ["relift", "smoke", "quickstart", "pretrained"])
@pytest.mark.parametrize("platform", ["cuda", "cpu"])
def test_everything_that_this_project_sets_is_counted(name, platform):
    assert uncounted(compose_config(name, None, [], platform)) == []


def test_the_documents_name_every_gpu():
    text = (Path(__file__).parents[3] / "docs/scale.md").read_text()
    rows = dict(re.findall(r"^\| `([\w-]+)` \| ([^|]+) \|", text, re.MULTILINE))
    named = {name: gpu.name.removeprefix("NVIDIA ") for name, gpu in hardware.KNOWN.items()}
    assert {name: rows.get(name) for name in named} == named


def test_the_documents_have_the_lines_that_plan_writes(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    text = (Path(__file__).parents[3] / "docs/scale.md").read_text()
    overrides = ["actor_rollout_ref.model.path=Qwen/Qwen2.5-7B", "trainer.n_gpus_per_node=8"]
    plan = make_plan(compose_config("relift", None, overrides, "cuda"), hardware.KNOWN["h100"], None, True)
    said = [line for line in lines_of(plan) if re.match("500 steps: |checkpoints: ", line)]
    assert len(said) == 2 and all(f"`{line}`" in text for line in said), said


def test_planning_imports_nothing_heavy_and_takes_ten_seconds_of_processor_time():
    code = (
        "import sys, time\n"
        f"sys.argv = ['plan', *{SEVEN_B!r}]\n"
        "from verl_relift.plan.__main__ import main\n"
        "main()\n"
        "modules = {module.split('.')[0] for module in sys.modules}\n"
        "heavy = {'torch', 'verl', 'ray', 'vllm', 'megatron', 'transformers'} & modules\n"
        "print('HEAVY', sorted(heavy), 'SECONDS', time.process_time())\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "HEAVY []" in answer.stdout, answer.stdout[-500:] + answer.stderr[-2000:]
    assert float(answer.stdout.split("SECONDS")[1]) < 10


# ---- positions -------------------------------------------------------------------------------------------------------

LLAMA = dict(model_type="llama", vocab_size=256, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
             num_attention_heads=2, num_key_value_heads=2)  # fmt: skip


@pytest.mark.parametrize(
    ("config", "positions"),
    [
        (dict(max_position_embeddings=4096), 4096),
        (dict(max_position_embeddings=4096, rope_scaling={"type": "linear", "factor": 2.0}), 8192),
        (dict(max_position_embeddings=32768, rope_parameters={"rope_type": "yarn", "factor": 4.0,
              "original_max_position_embeddings": 8192}), 32768),
        (dict(max_position_embeddings=131072, rope_scaling={"rope_type": "llama3", "factor": 8.0,
              "original_max_position_embeddings": 8192}), 131072),
        ({}, None),
    ],
    ids=["plain", "linear", "yarn", "llama3", "unknown"],
)  # fmt: skip
def test_positions_are_those_that_training_counts(config, positions):
    assert shapes.from_config(LLAMA | config).positions == positions


def test_a_demonstration_that_joins_a_group_may_be_the_longest_row_of_the_rl_update():
    sizes = ["data.max_prompt_length=1024", "data.max_response_length=2048", "method.demonstrations.max_tokens=8192"]
    for method, longest in (("luffy", 9216), ("hpt", 9216), ("chord_mu", 3072)):
        overrides = [f"method={method}", "actor_rollout_ref.model.path=Qwen/Qwen2.5-Math-7B", *sizes]
        planned = read(compose_config("relift", None, overrides, "cuda"), transformer_engine=True)
        assert planned.longest("update") == longest
