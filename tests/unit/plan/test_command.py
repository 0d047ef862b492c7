"""Tests what `python -m verl_relift.plan` answers to people who have only read the documents."""

import json
import re
import sys

import pytest

from verl_relift.plan import __main__ as command
from verl_relift.plan import advice, hardware, memory, shapes
from verl_relift.plan.advice import Budget
from verl_relift.plan.job import Batches, Job, Rollout, Training

ENGINE = "actor_rollout_ref.actor.megatron"
TRANSFORMER = f"{ENGINE}.override_transformer_config"
MODEL = "actor_rollout_ref.model.path"
SEVEN_B = ("--gpu", "h100", f"{MODEL}=Qwen/Qwen2.5-7B", "trainer.n_gpus_per_node=8")
QWEN2 = dict(
    architectures=["Qwen2ForCausalLM"], model_type="qwen2", hidden_act="silu", hidden_size=3584,
    intermediate_size=18944, max_position_embeddings=131072, num_attention_heads=28, num_hidden_layers=28,
    num_key_value_heads=4, rope_theta=1000000.0, sliding_window=131072, use_sliding_window=False,
    tie_word_embeddings=False, torch_dtype="bfloat16", vocab_size=152064,
)  # fmt: skip


@pytest.fixture
def plan(monkeypatch, capsys):
    """Call the command, and return its status and what it printed to stdout and stderr."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["plan", *arguments])
        capsys.readouterr()
        try:
            status = command.main()
        except SystemExit as ended:
            status = ended.code
        return status, *capsys.readouterr()

    return call


def folder_of(tmp_path, **fields) -> str:
    (tmp_path / "config.json").write_text(json.dumps(QWEN2 | fields))
    return f"{MODEL}={tmp_path}"


# ---- what training rejects -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (dict(quantization_config={"quant_method": "gptq", "bits": 4}), "has quantization_config="),
        (dict(quantization_config={"quant_method": "awq", "bits": 4}), "has quantization_config="),
        (dict(hidden_act="gelu"), "has hidden_act=gelu, which would be trained as hidden_act=silu"),
        (dict(use_sliding_window=True), "has use_sliding_window=True"),
        (dict(rope_scaling={"type": "dynamic", "factor": 2.0}), "has rope_type=dynamic; "),
        (dict(model_type="mistral", architectures=["MistralForCausalLM"]),
         "has model_type=mistral, which cannot be trained; choose a dense model of llama, qwen2, qwen3"),
        (dict(model_type="qwen3_moe", architectures=["Qwen3MoeForCausalLM"], num_experts=128),
         "has model_type=qwen3_moe, which cannot be trained; choose a dense model of llama, qwen2, qwen3"),
    ],
)  # fmt: skip
def test_a_model_that_training_refuses_is_rejected(fields, said, tmp_path, plan):
    status, out, err = plan("--gpu", "h100", folder_of(tmp_path, **fields))
    assert (status, out) == (2, "")
    assert err.startswith(f"rejected: {MODEL}: {tmp_path}/config.json has ") and said in err


def test_the_same_model_without_such_fields_is_planned(tmp_path, plan):
    status, out, _ = plan("--gpu", "h100", folder_of(tmp_path), "trainer.n_gpus_per_node=8")
    assert status == 0 and out.splitlines()[-1] == "fits"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("trainer.total_training_steps=ten", "trainer.total_training_steps=ten must be a whole number"),
        ("trainer.total_training_steps=500.5", "trainer.total_training_steps=500.5 must be a whole number"),
        ("trainer.save_freq=fifty", "trainer.save_freq=fifty must be a whole number"),
        ("trainer.nnodes=two", "trainer.nnodes=two must be a whole number of at least 1"),
        ("trainer.n_gpus_per_node=0", "trainer.n_gpus_per_node=0 must be a whole number of at least 1"),
        (f"{ENGINE}.tensor_model_parallel_size=0", f"{ENGINE}.tensor_model_parallel_size=0 must be a whole number"),
        (f"{ENGINE}.pipeline_model_parallel_size=-1", f"{ENGINE}.pipeline_model_parallel_size=-1 must be a whole"),
        (f"{ENGINE}.context_parallel_size=0", f"{ENGINE}.context_parallel_size=0 must be a whole number"),
        ("actor_rollout_ref.rollout.tensor_model_parallel_size=x", "rollout.tensor_model_parallel_size=x must be a"),
        ("actor_rollout_ref.rollout.n=0", "actor_rollout_ref.rollout.n=0 must be a whole number of at least 1"),
        ("actor_rollout_ref.rollout.gpu_memory_utilization=80",
         "gpu_memory_utilization=80 must be a finite number above 0 and at most 1"),
        ("actor_rollout_ref.rollout.max_model_len=0", "actor_rollout_ref.rollout.max_model_len=0 must be"),
        ("data.train_batch_size=0", "data.train_batch_size=0 must be a whole number of at least 1"),
        ("data.max_response_length=-5", "data.max_response_length=-5 must be"),
        ("actor_rollout_ref.actor.ppo_mini_batch_size=0", "actor_rollout_ref.actor.ppo_mini_batch_size=0 must be"),
        ("actor_rollout_ref.actor.ppo_max_token_len_per_gpu=0", "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=0"),
        ("data.seed=-1", "data.seed=-1 must be"),
        (f"{TRANSFORMER}.recompute_granularity=all", f"{TRANSFORMER}.recompute_granularity=all must be one of null, "
         "selective, full"),
        (f"{TRANSFORMER}.recompute_granularity=full", f"{TRANSFORMER}.recompute_granularity=full needs "
         "recompute_method=uniform and recompute_num_layers=1"),
        (f"{TRANSFORMER}.recompute_num_layers=x", f"{TRANSFORMER}.recompute_num_layers=x must be a whole number"),
        (f"{TRANSFORMER}.recompute_modules=-1", f"{TRANSFORMER}.recompute_modules=-1 must be a list"),
        ("+actor_rollout_ref.rollout.engine_kwargs.vllm.num_gpu_blocks_override=x",
         "engine_kwargs.vllm.num_gpu_blocks_override=x must be a whole number of at least 1 or null"),
        ("+actor_rollout_ref.model.override_config.rope_theta=1e4", "override_config.rope_theta would change"),
        ("trainer.n_gpus_per_node=1", "1 GPU (trainer.nnodes x trainer.n_gpus_per_node) cannot be divided into model "
         "replicas of 2 (actor_rollout_ref.actor.megatron: tensor x pipeline x context parallel size); make that "
         "product 1"),
        (f"{ENGINE}.tensor_model_parallel_size=3",
         f"{ENGINE}.tensor_model_parallel_size=3 must divide the model's 28 attention heads, 4 key-value heads, "
         "18944 hidden units of the feed-forward layer; choose 1, 2 or 4"),
        (f"{ENGINE}.tensor_model_parallel_size=8",
         f"{ENGINE}.tensor_model_parallel_size=8 must divide the model's 28 attention heads, 4 key-value heads; "
         "choose 1, 2 or 4"),
        ("actor_rollout_ref.rollout.tensor_model_parallel_size=3",
         "actor_rollout_ref.rollout.tensor_model_parallel_size=3 must divide the model's 28 attention heads; choose "
         "1, 2 or 4"),
        (f"{ENGINE}.pipeline_model_parallel_size=8", "must divide the model's 28 layers; choose 1, 2 or 4"),
        ("data.train_batch_size=100", "must be divisible by actor_rollout_ref.actor.ppo_mini_batch_size=64; set it to "
         "64 or 128"),
        ("method.sft.batch_size=50", "must be divisible by the data-parallel size 4; set it to 48 or 52"),
        ("actor_rollout_ref.actor.ppo_max_token_len_per_gpu=4096",
         "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=4096 must hold the longest sequence"),
    ],
)  # fmt: skip
def test_an_impossible_setting_is_one_line_and_nothing_else(override, said, plan):
    status, out, err = plan(*SEVEN_B, override)
    assert (status, out) == (2, ""), out + err
    [line] = err.splitlines()
    assert line.startswith("rejected: ") and said in line


@pytest.mark.parametrize("tokens", ["-5", "0", "8193", "100000"])
def test_a_mean_length_that_no_response_has_is_rejected(tokens, plan):
    status, out, err = plan(*SEVEN_B, f"--response-tokens={tokens}")
    assert (status, out) == (2, "")
    assert err.startswith(f"rejected: --response-tokens={tokens}: the mean length of a response must be above 0 and at")


def test_a_rejection_is_an_object_with_json(plan):
    status, out, err = plan(*SEVEN_B, "--json", "data.train_batch_size=0")
    [problem] = json.loads(out)["problems"]
    assert status == 2 and err == f"rejected: {problem}\n" and json.loads(out)["fits"] is False


def test_a_rejection_in_a_stage_names_it(plan):
    status, _, err = plan(*SEVEN_B, "method=sft_then_rl", "method.then.overrides=['data.train_batch_size=100']")
    assert status == 2 and err.startswith("rejected: stage rl: data.train_batch_size=100 must be divisible by")


def test_too_few_positions_are_rejected_with_the_fix(plan):
    """1,024 + 8,192 tokens, the default."""
    status, _, err = plan("--gpu", "h100", f"{MODEL}=Qwen/Qwen2.5-Math-7B", "trainer.n_gpus_per_node=8")
    assert status == 2
    assert "max_model_len=9216: the model reads at most 4096 tokens" in err and "prepare_model --max-positions" in err


# ---- which model -----------------------------------------------------------------------------------------------------


def test_a_model_that_is_not_named_is_asked_for_as_training_does(plan):
    status, out, err = plan("--gpu", "h100")
    assert (status, out, err) == (2, "", f"rejected: {MODEL} is not set; give a Hugging Face folder or hub id\n")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("models/no/such", "=models/no/such: no such folder; give a Hugging Face folder or hub id"),
        ("./nowhere", "=./nowhere: no such folder; "),
        ("/nowhere", "=/nowhere: no such folder; "),
        ("Qwen2.5-7B", "=Qwen2.5-7B: no such folder; give a Hugging Face folder or hub id (OWNER/NAME)"),
        ("nobody/nothing", "=nobody/nothing: no such folder, and the hub gives no config.json (ConnectionError); "
         "correct the name, or fetch it where the hub can be reached (hf download nobody/nothing config.json "
         "--local-dir DIR) and give DIR"),
        ("", "must be a text"),
        ("''", "must be a text"),
    ],
)  # fmt: skip
def test_a_model_that_cannot_be_found_is_named_with_its_key(path, said, plan):
    status, out, err = plan("--gpu", "h100", f"{MODEL}={path}")
    assert (status, out) == (2, "")
    [line] = err.splitlines()
    assert line.startswith(f"rejected: {MODEL}") and said in line


def test_a_file_of_a_model_is_answered_with_its_folder(tmp_path, plan):
    folder_of(tmp_path)
    status, _, err = plan("--gpu", "h100", f"{MODEL}={tmp_path}/config.json")
    assert (status, err) == (2, f"rejected: {MODEL}={tmp_path}/config.json is a file; give its folder, {tmp_path}\n")


@pytest.mark.parametrize(
    ("name", "built_in"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B-Instruct"),
        ("qwen/qwen2.5-7b", "Qwen/Qwen2.5-7B"),
        ("Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-7B-Instruct"),
        ("Qwen/Qwen2.5-1.5B", "Qwen/Qwen2.5-1.5B"),
    ],
)
def test_well_known_names_are_planned_without_the_hub(name, built_in, plan):
    status, out, err = plan("--gpu", "h200", f"{MODEL}={name}", "trainer.n_gpus_per_node=8")
    assert status == 0, out + err
    assert f"(built-in shape of {built_in}: its config.json could not be fetched)" in out


def test_a_copy_to_be_made_is_said_on_a_line_of_its_own(plan):
    prepare = "python -m data_preprocess.prepare_model --model Qwen2.5-7B --output models/typo"
    status, out, _ = plan("--gpu", "h100", "trainer.n_gpus_per_node=8", f"{MODEL}=models/typo", "--prepare", prepare)
    assert status == 0
    assert out.splitlines()[0] == "models/typo is not there yet; planned as what prepare_model makes of Qwen2.5-7B"


# ---- data and machine ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([], "plan reads no data files (data.train_files and data.val_files not set)"),
        (["data.train_files=[no.parquet]", "data.val_files=no.parquet"],
         "plan reads no data files (not there: no.parquet)"),
        (["data.train_files=[a b]", f"data.val_files={__file__}"],
         "plan reads no data files (not there: 'a b'); several files are separated by commas"),
        ([f"data.train_files=[{__file__}]", f"data.val_files={__file__}"], None),
    ],
)  # fmt: skip
def test_data_that_is_not_there_is_said(files, said, plan):
    _, out, _ = plan(*SEVEN_B, *files)
    assert [line for line in out.splitlines() if "data files" in line] == [said] * bool(said)


def test_without_a_gpu_it_says_first_that_it_plans_for_the_cpu(plan, monkeypatch):
    monkeypatch.setattr(command, "detect_platform", lambda: "cpu")
    monkeypatch.setattr(hardware, "visible_gpu", lambda: None)
    said = "this machine has no GPU, so that this is a plan for its CPU; for GPUs add --gpu NAME\n"
    arguments = (f"{MODEL}=Qwen/Qwen2.5-7B", "trainer.n_gpus_per_node=8", "--memory", "8")
    status, _, err = plan(*arguments)
    assert (status, err) == (1, said)
    assert plan(*arguments, "platform=cpu")[2] == ""
    assert plan(*SEVEN_B)[2] == ""


@pytest.mark.parametrize(
    ("name", "gpu"),
    [("H100", "h100"), ("H100-80G", "h100"), ("h100-80gb", "h100"), ("4090", "rtx4090"), ("RTX 4090", "rtx4090"),
     ("rtx_4090", "rtx4090"), ("NVIDIA H200", "h200"), ("A100-40GB", "a100-40g"), ("l40s", "l40s")],
)  # fmt: skip
def test_a_gpu_is_known_by_the_names_that_people_write(name, gpu):
    assert hardware.named(name) is hardware.KNOWN[gpu]


@pytest.mark.parametrize(
    ("name", "said"),
    [("a100", "did you mean a100-80g or a100-40g?"), ("h101", "did you mean h100"), ("tpu", "known are b200, h200")],
)
def test_a_gpu_that_is_not_known_is_answered_with_those_that_are(name, said, plan):
    status, out, err = plan("--gpu", name)
    assert (status, out) == (2, "") and said in err and "for others use --gpu-memory GIB" in err


@pytest.mark.parametrize(("text", "gib"), [("80", 80), ("80GB", 80), ("79.6GiB", 79.6), ("80 g", 80)])
def test_memory_may_have_its_unit(text, gib, plan):
    _, out, _ = plan("--gpu-memory", text, *SEVEN_B[2:])
    assert f"GPU of {gib:g} GiB" in out


@pytest.mark.parametrize("text", ["much", "0", "-3", "80TB"])
def test_memory_that_is_no_number_is_rejected(text, plan):
    status, out, err = plan(f"--gpu-memory={text}", *SEVEN_B[2:])
    assert (status, out) == (2, "") and f"{text!r} is not a number of GiB above 0" in err


# ---- figures ---------------------------------------------------------------------------------------------------------


def seconds_of(out: str) -> dict[str, float]:
    return {stage["name"]: stage["seconds"] for stage in json.loads(out)["work"]}


def test_supervised_fine_tuning_alone_has_no_rollouts(plan):
    """128 questions in two updates of 64: twice what ReLIFT's one takes."""
    relift = seconds_of(plan(*SEVEN_B, "--json")[1])
    sft = plan(*SEVEN_B, "--json", "method=sft")[1]
    assert seconds_of(sft) == {"supervised update": pytest.approx(2 * relift["supervised update, when due"])}
    assert json.loads(sft)["work"][0]["tokens"] == 128 * (512 + 4096)
    assert json.loads(sft)["memory"]["phases"].keys() == {"validation", "supervised update", "weight sync"}
    twice = seconds_of(plan(*SEVEN_B, "--json", "method=sft", "method.sft.epochs=2")[1])
    assert twice["supervised update"] == pytest.approx(4 * relift["supervised update, when due"])
    assert "4 vLLM replicas of tensor 2, for validation only" in plan(*SEVEN_B, "method=sft")[1]


def test_several_supervised_updates_of_a_step_count(plan):
    one, two = (
        seconds_of(plan(*SEVEN_B, "--json", f"method.schedule.max_updates_per_step={updates}")[1]) for updates in (1, 5)
    )
    # 128 questions have at most 128 demonstrations.
    assert two["supervised update, when due"] == pytest.approx(2 * one["supervised update, when due"])


def test_stages_are_added_up(plan):
    status, out, _ = plan(*SEVEN_B, "method=sft_then_rl")
    assert status == 0
    each = [float(hours) for hours in re.findall(r"^500 steps: ([\d.]+) h", out, re.MULTILINE)]
    [(total, disk)] = re.findall(
        r"^all stages: ([\d.]+) h, .*; ([\d.]+) GiB of checkpoints on disk$", out, re.MULTILINE
    )
    assert len(each) == 2 and each[0] < 2 < each[1] and float(total) == pytest.approx(sum(each), abs=0.11)
    assert float(disk) == pytest.approx(2 * 993.0, abs=0.2)


@pytest.mark.parametrize("method", ["luffy", "rl_plus", "srft"])
def test_a_demonstration_in_the_place_of_a_rollout_is_not_generated(method, plan):
    def tokens(*overrides: str) -> dict[str, int]:
        work = json.loads(plan(*SEVEN_B, "--json", *overrides)[1])["work"]
        return {stage["name"]: stage["tokens"] for stage in work}

    with_it, without = tokens(f"method={method}"), tokens("method=grpo")
    assert without["rollout"] - with_it["rollout"] == 128 * 4096
    assert with_it["RL update"] == without["RL update"]


def test_days_and_jobs_of_a_long_run(plan):
    _, out, _ = plan(*SEVEN_B, "trainer.total_training_steps=5000", "--time-limit", "24")
    assert re.search(r"^5000 steps: 9\.\d days, ", out, re.MULTILINE)
    assert (
        "with a time limit of 24 h: 10 jobs, of which each stops 30 min before it (examples/slurm)" in out
        and "a step takes" not in out
    )
    _, out, _ = plan(*SEVEN_B[:3], "trainer.n_gpus_per_node=2", "data.train_batch_size=4096", "--time-limit=24h")
    assert re.search(r"^a step takes [\d.]+ h, longer than that: send the signal earlier", out, re.MULTILINE)
    assert plan(*SEVEN_B, "--time-limit", "0.5")[0] == 2


def test_layouts_are_compared_each_as_it_would_be_planned(plan):
    status, out, _ = plan("--layouts", "--json", *SEVEN_B)
    found = {(one["tensor"], one["pipeline"]): one for one in json.loads(out)}
    assert status == 0
    assert found.keys() == {(t, p) for t in (1, 2, 4, 8) for p in (1, 2, 4, 8) if t * p <= 8}
    for sizes in ((1, 1), (2, 1), (4, 2)):
        keys = [
            f"{ENGINE}.{name}_model_parallel_size={n}" for name, n in zip(("tensor", "pipeline"), sizes, strict=True)
        ]
        status, out, _ = plan("--json", *SEVEN_B, *keys)
        alone, one = json.loads(out), found[sizes]
        assert one["fits"] is alone["fits"] is (status == 0)
        assert one["memory"] == {name: parts["sum"] for name, parts in alone["memory"]["phases"].items()}
        assert one["largest_token_budget"] == alone["largest_token_budget"]
    # docs/scale.md has these figures.
    assert [found[tensor, 1]["largest_token_budget"] for tensor in (1, 2, 4)] == [None, 17_408, 44_032]
    refused = found[8, 1]
    assert not refused["fits"] and "must divide the model's 28 attention heads" in refused["problems"][0]
    status, out, _ = plan("--layouts", *SEVEN_B)
    assert re.search(r"│ +2 │ +1 │ +4 │ .* fits +│", out) and out.count("rejected: ") == 2
    assert plan("--layouts", "--trace", *SEVEN_B)[0] == 2
    # The sizes that are configured need not be possible; what no sizes mend is said once.
    assert plan("--layouts", *SEVEN_B, f"{ENGINE}.tensor_model_parallel_size=8")[0] == 0
    status, out, err = plan("--layouts", *SEVEN_B, "data.train_batch_size=100")
    assert (status, out) == (2, "") and err.count("rejected: ") == 1 and "data.train_batch_size=100 must" in err
    status, _, err = plan("--layouts", *SEVEN_B, "trainer.nnodes=3")
    assert status == 2 and "ppo_mini_batch_size" in err and "pipeline_model_parallel_size" not in err


THIRTY_TWO_B = dict(
    hidden_size=5120, intermediate_size=27648, num_attention_heads=40, num_hidden_layers=64, num_key_value_heads=8
)


def test_larger_vllm_replicas_are_advised_where_only_they_help(tmp_path, plan):
    """Each change is needed, and enough: the plan with all of them fits, without any of them it does not."""
    cluster = ("--gpu", "h100", folder_of(tmp_path, **THIRTY_TWO_B), "trainer.n_gpus_per_node=8", "trainer.nnodes=4")
    share = "actor_rollout_ref.rollout.gpu_memory_utilization=0.4"
    for given in ((f"{ENGINE}.tensor_model_parallel_size=8", share), ()):
        status, out, _ = plan("--json", *cluster, *given)
        answer = json.loads(out)
        changes = [change["overrides"] for change in answer["changes"]]
        assert status == 1 and answer["changes_suffice"]
        assert "actor_rollout_ref.rollout.tensor_model_parallel_size=4" in [one for change in changes for one in change]
        assert plan("--json", *cluster, *given, *(one for change in changes for one in change))[0] == 0
        for left_out in changes:
            others = [one for change in changes if change != left_out for one in change]
            assert plan("--json", *cluster, *given, *others)[0] == 1
    _, out, _ = plan("--layouts", *cluster)
    assert "vLLM keeps tensor 2" in out and re.search(r"│ +8 │ +1 │.*fits with rollout\.tensor_model_paral", out)


def test_a_time_limit_may_be_written_as_slurm_has_it(plan):
    for text, hours in {"24:00:00": "24", "1-00:00:00": "24", "2-12": "60", "0-01:30": "1.5", "1:30:00": "1.5"}.items():
        _, out, _ = plan(*SEVEN_B, "trainer.total_training_steps=5000", "--time-limit", text)
        assert f"with a time limit of {hours} h: " in out, text
    for text in ("24:00", "0:20:00", "1-", "a day"):
        status, _, errors = plan(*SEVEN_B, "--time-limit", text)
        assert status == 2 and "or a time such as 24:00:00 or 1-00:00:00" in errors, text


def test_host_memory_is_said_with_its_purpose(plan):
    def line(*overrides: str) -> str:
        return next(one for one in plan(*SEVEN_B, *overrides)[1].splitlines() if one.startswith("host memory"))

    assert line() == "host memory of a node: 255.3 GiB to save a checkpoint, 340.5 GiB to resume from it"
    # SIGUSR1 saves one even so.
    assert line("trainer.save_freq=-1") == line()
    # Of 12 bytes per parameter, 85.1 GiB; with the weights of 4 copies 141.9.
    assert line(f"{ENGINE}.optimizer_offload=true") == f"{line()}, 85.1 GiB for what is offloaded"
    both = (f"{ENGINE}.optimizer_offload=true", f"{ENGINE}.param_offload=true")
    assert line(*both) == f"{line()}, 141.9 GiB for what is offloaded"
    # Eight nodes: the first still gathers 24 bytes per parameter of its ranks; only the shares of all shrink.
    eight = ("trainer.nnodes=8", f"{ENGINE}.tensor_model_parallel_size=4")
    assert line(*eight) == "host memory of a node: 180.9 GiB to save a checkpoint, 170.2 GiB to resume from it"


def test_a_plan_with_settings_that_it_does_not_follow_says_so_in_its_verdict(plan):
    status, out, _ = plan(*SEVEN_B, "actor_rollout_ref.rollout.quantization=fp8")
    assert status == 0 and out.splitlines()[-1] == "fits, as far as plan knows"


# ---- advice ----------------------------------------------------------------------------------------------------------


def test_a_cache_that_is_too_large_is_made_smaller_and_nothing_else(plan):
    status, out, _ = plan(*SEVEN_B, "actor_rollout_ref.rollout.gpu_memory_utilization=0.8")
    assert status == 1
    said = out[out.index("make these changes") :].splitlines()
    assert said[1:] == ["  1. smaller KV cache:", "     actor_rollout_ref.rollout.gpu_memory_utilization=0.5"]


def test_recomputation_comes_before_offloading(plan):
    _, out, _ = plan("--gpu-memory", "30", *SEVEN_B[2:], f"{ENGINE}.tensor_model_parallel_size=4")
    said = out[out.index("make these changes") :]
    assert "recompute_granularity=full" in said
    assert "offload" not in said or said.index("recompute") < said.index("offload")
    assert max(map(len, said.splitlines())) < 140


def test_more_gpus_are_named_with_their_number_and_enough(plan):
    arguments = ("--gpu", "h100", f"{MODEL}=Qwen/Qwen2.5-7B", f"{ENGINE}.tensor_model_parallel_size=1",
                 "actor_rollout_ref.rollout.tensor_model_parallel_size=1")  # fmt: skip
    status, out, _ = plan(*arguments, "trainer.n_gpus_per_node=1")
    assert status == 1
    advised = re.search(r"use (\d+) GPUs \((trainer\.nnodes=\d+) (trainer\.n_gpus_per_node=\d+)", out.splitlines()[-1])
    assert advised, out.splitlines()[-1]
    assert "no change" not in out or "of those that plan follows" in out
    _, larger, _ = plan(*arguments, *advised.groups()[1:])
    assert "fits" in larger.splitlines()[-1] or "make these changes" in larger
    assert "not enough" not in larger and "is enough" not in larger


def test_two_phases_that_are_too_large_are_each_mended_by_what_they_need(plan):
    """Llama-3.1-8B: 0.1 GiB is missing in the update and 0.04 in the rollouts."""
    _, out, _ = plan("--gpu", "h100", f"{MODEL}=meta-llama/Llama-3.1-8B", "trainer.n_gpus_per_node=8")
    said = out[out.index("make these changes") :].splitlines()
    assert said[1:3] == ["  1. smaller KV cache:", "     actor_rollout_ref.rollout.gpu_memory_utilization=0.4"]
    assert said[3] == "  2. smaller and more micro-batches:" and len(said) == 5
    assert int(said[4].split("=")[1]) > 15000


@pytest.mark.parametrize(
    ("optimizer", "named"),
    [
        (0.5, []),
        (1.0, ["optimizer_cpu_offload"]),
        (2.0, ["optimizer_cpu_offload", "use_precision_aware_optimizer"]),
    ],
)
def test_what_plan_does_not_follow_is_named_where_it_may_save_enough(optimizer, named):
    """A share of what is missing is in the optimizer."""
    planned = Job(
        shapes.BUILT_IN["Qwen/Qwen2.5-7B"], "test", 1, 8, True, Training(tensor=2, data=4), Rollout(), Batches()
    )
    worst = max(Budget.of_gpu(80 << 30).phases(planned), key=lambda phase: phase.total)
    short = worst.parts["optimizer"] / optimizer
    budget = Budget.of_gpu(int((worst.total - short) / (1 - memory.FRAGMENTATION)) + 1024)
    said = advice.way_out(planned, budget, [])
    assert [name for name in ("optimizer_cpu_offload", "use_precision_aware_optimizer") if name in said] == named
    assert ("which plan does not follow, may save the" in said) is bool(named)
