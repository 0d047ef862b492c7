"""What Megatron-Core, vLLM, Ray and verl refuse is found without starting any of them."""

import os
import re
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from verl_relift import engines

from .configurations import overridden

ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
TRANSFORMER = f"{ACTOR}.megatron.override_transformer_config"
OPTIMIZER = f"{ACTOR}.optim.override_optimizer_config"
DDP = f"{ACTOR}.megatron.override_ddp_config"
VLLM, RAY = f"{ROLLOUT}.engine_kwargs.vllm", "ray_kwargs.ray_init"

ALL = (
    engines.verl_problems,
    engines.named_problems,
    engines.megatron_problems,
    engines.optimizer_problems,
    engines.vllm_problems,
    engines.ray_problems,
)


def lines_of(*overrides: str) -> list[str]:
    with overridden(*overrides) as config:
        return next((lines for find in ALL if (lines := list(find(config)))), [])


def test_the_quickstart_is_accepted():
    assert lines_of() == []


def test_offline_vllm_is_not_asked_for_a_model_of_its_own(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with overridden() as config:
        assert config.actor_rollout_ref.rollout.engine_kwargs.vllm
        assert list(engines.vllm_problems(config)) == []


def test_asking_leaves_the_environment_as_it_is():
    """In a process that has not imported vLLM yet; Ray's processes inherit the variables."""
    code = (
        "import os; from tests.unit.configurations import configuration; from verl_relift import engines; "
        "import verl.workers.config; config = configuration(); before = dict(os.environ); "
        "assert not list(engines.vllm_problems(config)); import sys; assert 'vllm' in sys.modules; "
        "assert dict(os.environ) == before"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=300)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (f"+{TRANSFORMER}.recompute_granularty=full", "has no such setting; did you mean recompute_granularity"),
        (f"+{TRANSFORMER}.foo=1", "TransformerConfig has no such setting; remove it"),
        (f"{TRANSFORMER}.attention_backend=flashy", "must be of type AttnBackend .flash, fused, unfused, local, auto"),
        (f"{TRANSFORMER}.recompute_num_layers=all", "must be of type int or null"),
        (f"{TRANSFORMER}.recompute_modules=core_attn", "must be of type list"),
        (f"+{TRANSFORMER}.hidden_dropout=none", "must be of type float"),
        (f"+{TRANSFORMER}.apply_rope_fusion=1", "must be of type bool"),
        (f"+{TRANSFORMER}.num_layers=2", "num_layers=2: set it in the model's config.json instead"),
        (f"+{TRANSFORMER}.context_parallel_size=2", f"set {ACTOR}.megatron.context_parallel_size instead"),
        (f"+{TRANSFORMER}.bf16=true", f"set {ACTOR}.megatron.dtype instead"),
        (f"+{OPTIMIZER}.adam_epsilon=1e-6", "OptimizerConfig has no such setting; did you mean adam_eps"),
        (f"+{OPTIMIZER}.adam_eps=small", "must be of type float"),
        (f"+{OPTIMIZER}.lr=1e-4", f"set {ACTOR}.optim.lr instead"),
        (f"+{OPTIMIZER}.overlap_cpu_optimizer_d2h_h2d=7", "must be of type bool"),
        (f"+{DDP}.overlap_grads=true", "DistributedDataParallelConfig has no such setting"),
        (f"+{DDP}.bucket_size=big", "must be of type int or null"),
        (f"+{DDP}.use_distributed_optimizer=false", f"set {ACTOR}.megatron.use_distributed_optimizer instead"),
        ("+actor_rollout_ref.ref.megatron.override_transformer_config.foo=1", "TransformerConfig has no such setting"),
        (f"+{ACTOR}.checkpoint.mbridge_config.compress=true", "mbridge_config.compress: mbridge has no such setting"),
        (f"+{VLLM}.max_lora=2", "vLLM has no such setting; did you mean max_loras"),
        (f"+{VLLM}.max_loras=abc", "vLLM refuses .*max-loras: invalid int value: 'abc'"),
        (f"+{VLLM}.max_model_len=100", f"max_model_len=100: set {ROLLOUT}.max_model_len instead"),
        (f"+{VLLM}.tensor_parallel_size=2", f"set {ROLLOUT}.tensor_model_parallel_size instead"),
        (f"+{VLLM}.kv_cache_dtype=fp3", "vLLM refuses .*kv-cache-dtype"),
        (f"+{RAY}.num_cpu=4", "ray_init.num_cpu: Ray has no such setting; did you mean num_cpus"),
        (f"{RAY}.num_cpus=-1", "num_cpus=-1 must be a whole number of at least 0, or null"),
        (f"+{RAY}.object_store_memory=2GB", "object_store_memory=2GB must be a whole number"),
        (f"+{RAY}.runtime_env.env_var.A=1", "runtime_env.env_var: Ray has no such setting; did you mean env_vars"),
    ],
)
def test_one_line_says_what_is_refused(override, message):
    lines = lines_of(override)
    assert len(lines) == 1 and re.search(message, lines[0]), lines


@pytest.mark.parametrize(
    "overrides",
    [
        f"+{TRANSFORMER}.moe_aux_loss_coeff=0.1",
        f"{TRANSFORMER}.recompute_granularity=selective",
        f"{TRANSFORMER}.attention_backend=unfused",
        f"+{OPTIMIZER}.adam_eps=1e-6",
        f"+{DDP}.average_in_collective=false",
        f"+{ACTOR}.checkpoint.mbridge_config.memory_efficient=true",
        f"+{VLLM}.block_size=32",
        f"+{RAY}.dashboard_port=8100",
        f"{RAY}.num_cpus=null",
        "algorithm.rollout_correction.rollout_rs=seq_mean_k1 algorithm.rollout_correction.rollout_rs_threshold=0.5_2.0",
        "algorithm.rollout_correction.rollout_is=token algorithm.rollout_correction.rollout_is_threshold=0.5_5.0",
    ],
)
def test_what_they_know_is_accepted(overrides):
    assert lines_of(*overrides.split()) == []


def test_verls_classes_are_asked():
    [line] = lines_of(f"+{ACTOR}.profiler.foo=1")
    assert re.match("verl refuses the configuration: .*unexpected keyword argument 'foo'", line)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            "data.custom_cls.path=no/file.py data.custom_cls.name=A",
            r"data\.custom_cls\.path=no/file\.py cannot be loaded",
        ),
        ("data.custom_cls.path=pkg://json data.custom_cls.name=JSONDecoder", r"custom_cls\.path=pkg://json cannot be"),
        ("trainer.checkpoint_callback_class=json.Callback", r"callback_class=json\.Callback cannot be loaded"),
        ("trainer.v1.sampler.custom_sampler.name=Sampler", r"custom_sampler\.path=pkg://.* cannot be loaded"),
        (f"+{ROLLOUT}.agent.agent_loop_manager_class=my.Manager", r"agent_loop_manager_class=my\.Manager cannot be"),
        (
            f"{ROLLOUT}.multi_turn.tool_config_path=tools.yaml",
            r"multi_turn\.tool_config_path=tools\.yaml: no such file",
        ),
    ],
)
def test_what_is_named_must_load(overrides, message):
    [line] = lines_of(*overrides.split())
    assert re.search(message, line)


CORRECTION = "algorithm.rollout_correction"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (f"{CORRECTION}.rollout_rs=seq_mean_k9 {CORRECTION}.rollout_rs_threshold=1", "Invalid rollout_rs option"),
        (f"{CORRECTION}.rollout_rs=token_k2", "rollout_rs_threshold must be explicitly provided"),
        (f"{CORRECTION}.rollout_rs=token_k2 {CORRECTION}.rollout_rs_threshold=wide", "verl refuses the configuration"),
        (f"{CORRECTION}.rollout_is=token {CORRECTION}.rollout_is_threshold=-1", "must be positive"),
        (f"{CORRECTION}.rollout_is=token {CORRECTION}.rollout_is_threshold=low_high", "verl refuses the configuration"),
    ],
)
def test_verls_corrections_are_tried(overrides, message):
    [line] = lines_of(*overrides.split())
    assert message in line


def test_megatron_describes_the_model_with_the_overrides():
    from verl_relift.quickstart.base_model import build_model

    hf = build_model(32, 1, 0, seed=0).config
    hf.architectures = [type(build_model(32, 1, 0, seed=0)).__name__]
    with overridden() as config:
        assert list(engines.transformer_problems(config, hf)) == []
    with overridden(f"{TRANSFORMER}.recompute_granularity=full") as config:
        [line] = engines.transformer_problems(config, hf)
        assert "recompute_method must be" in line


OF_THE_HUB = """
from transformers import AutoConfig
from mbridge.core.bridge import Bridge
from tests.unit.configurations import configuration
from verl_relift.engines import weight_problems
config = configuration("actor_rollout_ref.model.path=somebody/small")
AutoConfig.from_pretrained("somebody/small")
print(Bridge._get_actual_hf_path(None, "somebody/small"))
print(*weight_problems(config))
"""


def test_a_model_of_the_hub_needs_its_weights_in_the_cache_where_mbridge_reads_them(tmp_path):
    """Offline: transformers takes config.json from the cache, and mbridge looks for weights beside it."""
    cached = tmp_path / "hub" / "models--somebody--small"
    snapshot = cached / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    (snapshot / "config.json").write_text('{"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}')

    def answer() -> list[str]:
        environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
        environment.pop("HF_HUB_CACHE", None)
        command = [sys.executable, "-c", OF_THE_HUB]
        return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.splitlines()

    line = f"weights are missing (no *.safetensors in {snapshot}); run: hf download somebody/small"
    assert answer() == [str(snapshot), f"actor_rollout_ref.model.path=somebody/small: {line}"]
    save_file({"a": torch.zeros(2)}, snapshot / "model.safetensors")
    assert answer() == [str(snapshot), ""]
