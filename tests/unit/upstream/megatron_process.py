"""What verl, Megatron and mbridge do without the patches, in one process of its own: one line of JSON.

Run by the fixture `megatron_process`; the tests of several modules read its findings.
"""

import importlib
import inspect
import json
import os
import socket
import sys

import torch
import verl  # noqa: F401  loads the plugin

from verl_relift.upstream.registry import ORIGINALS

IMPORTED_BY_VERL = [name for name in ("megatron.core.optimizer", "vllm", "mbridge") if name in sys.modules]

DISTRIBUTED_OPTIMIZER = "megatron.core.optimizer.distrib_optimizer:DistributedOptimizer"


def reason(function, *args, **kwargs) -> str | None:
    """The error that a call ends with, in one line; None if there is none."""
    try:
        function(*args, **kwargs)
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0][:300]
    return None


def start_process_group() -> dict:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ.update(RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    distributed = importlib.import_module("verl.utils.distributed")
    upstream = reason(ORIGINALS["verl.utils.distributed:initialize_global_process_group_ray"])
    distributed.initialize_global_process_group_ray()
    return {"process group": [upstream, torch.distributed.get_backend()]}


def wrap_model(dtype: torch.dtype):
    from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig
    from megatron.core.transformer.module import MegatronModule
    from megatron.core.transformer.transformer_config import TransformerConfig

    config = TransformerConfig(num_layers=1, hidden_size=8, num_attention_heads=2, bf16=dtype == torch.bfloat16)
    model = MegatronModule(config)
    model.layers = torch.nn.ModuleList(torch.nn.Linear(8, 8, bias=False) for _ in range(2)).to(dtype)
    ddp_config = DistributedDataParallelConfig(use_distributed_optimizer=True)
    return DistributedDataParallel(config, ddp_config, model)


def make_optimizer(dtype: torch.dtype, distributed: bool = True):
    from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer

    bf16 = dtype == torch.bfloat16
    config = OptimizerConfig(
        optimizer="adam", lr=0.1, bf16=bf16, params_dtype=dtype, use_distributed_optimizer=distributed
    )
    chained = get_megatron_optimizer(config, [wrap_model(dtype)])
    return getattr(chained, "chained_optimizers", [chained])[0]


def optimizers() -> dict:
    from megatron.core.optimizer import distrib_optimizer, optimizer
    from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer

    found = {}
    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    clip = "clip_grad_by_total_norm_fp32"
    found["clip"] = [
        reason(ORIGINALS[f"megatron.core.optimizer.optimizer:{clip}"], [weight], 1.0, 0.5),
        reason(getattr(optimizer, clip), [weight], 1.0, 0.5),
    ]
    for name, owner, distributed in (
        ("half", optimizer.Float16OptimizerWithFloat16Params, False),
        ("distributed", DistributedOptimizer, True),
    ):
        patched = owner.__init__
        owner.__init__ = ORIGINALS[f"{owner.__module__}:{owner.__qualname__}.__init__"]
        upstream = reason(make_optimizer, torch.bfloat16, distributed)
        owner.__init__ = patched
        found[name] = [upstream, reason(make_optimizer, torch.bfloat16, distributed)]
    assert not distrib_optimizer.HAVE_APEX_OR_TE
    return found


def checkpoints() -> dict:
    """Of the distributed optimizer with torch's AdamW: what its own methods do, and what the patched ones do."""
    names = ("_set_main_param_and_optimizer_states", "load_state_dict", "sharded_state_dict")
    upstream = {name: ORIGINALS[f"{DISTRIBUTED_OPTIMIZER}.{name}"] for name in names}
    found = {}
    for whose in ("upstream", "patched"):
        optimizer = make_optimizer(torch.float32)
        owner = type(optimizer)
        method = {name: upstream[name] if whose == "upstream" else getattr(owner, name) for name in names}
        sharded = reason(method["sharded_state_dict"], optimizer, {}, is_loading=True)

        for parameters in optimizer.param_groups:
            for parameter in parameters["params"]:
                parameter.grad = torch.ones_like(parameter)
        optimizer.optimizer.step()
        saved = optimizer.state_dict()
        saved["optimizer"]["param_groups"][0]["step"] = 7.0
        method["load_state_dict"](optimizer, saved)
        held = [state["step"] for state in optimizer.optimizer.state.values()]
        steps = [step.item() for step in held]

        parameter = next(iter(optimizer.model_param_group_index_map))
        tensors = {"param": torch.ones(64), "exp_avg": torch.ones(64), "exp_avg_sq": torch.ones(64)}
        stated = reason(method["_set_main_param_and_optimizer_states"], optimizer, parameter, tensors)
        found[whose] = {
            "sharded_state_dict in a fresh process": sharded,
            "steps": steps,
            "tensors that hold them": len({id(step) for step in held}),
            "_set_main_param_and_optimizer_states": stated,
        }
    return {"checkpoints": found}


def bridge() -> dict:
    llm_bridge = importlib.import_module("mbridge.core.llm_bridge")
    core = importlib.import_module("mbridge.core.bridge")
    from mbridge.models import Qwen2Bridge
    from transformers import Qwen2Config

    made = Qwen2Bridge(Qwen2Config(num_hidden_layers=1, hidden_size=16, num_attention_heads=2, num_key_value_heads=2))
    spec = ORIGINALS["mbridge.core.llm_bridge:LLMBridge._get_transformer_layer_spec"]
    names = ORIGINALS["mbridge.core.bridge:Bridge._weight_name_mapping_mcore_to_hf"]
    name = "decoder.layers.0.input_layernorm.weight"
    return {
        "spec asks for Transformer Engine": "use_transformer_engine=True" in inspect.getsource(spec),
        "spec": [reason(spec, made), reason(llm_bridge.LLMBridge._get_transformer_layer_spec, made)],
        "names": [reason(names, made, name), core.Bridge._weight_name_mapping_mcore_to_hf(made, name)],
    }


def positions() -> dict:
    """Of a Llama with llama3 scaling and a Qwen2 with YaRN: what mbridge itself and the patched one make of them."""
    from mbridge.models import LLaMABridge, Qwen2Bridge
    from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed
    from transformers import LlamaConfig, Qwen2Config
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    model_parallel_cuda_manual_seed(0)
    shape = dict(num_hidden_layers=1, hidden_size=32, num_attention_heads=2, num_key_value_heads=2, vocab_size=8)
    llama3 = dict(rope_type="llama3", rope_theta=1e4, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0)
    yarn = dict(rope_type="yarn", rope_theta=1e4, factor=4.0, original_max_position_embeddings=32)
    found = {}
    for bridge_class, config in (
        (LLaMABridge, LlamaConfig(**shape, rope_parameters=llama3 | {"original_max_position_embeddings": 64})),
        (Qwen2Bridge, Qwen2Config(**shape, rope_parameters=yarn)),
    ):
        kind = config.rope_parameters["rope_type"]
        expected, factor = ROPE_INIT_FUNCTIONS[kind](config, device="cpu")
        config.rope_theta = 1e4  # as verl sets it
        for whose in ("upstream", "patched"):
            made = bridge_class(config, dtype=torch.float32)
            name = "mbridge.core.llm_bridge:LLMBridge._model_provider"
            provide = ORIGINALS[name] if whose == "upstream" else bridge_class._model_provider
            model = provide(made, [])(pre_process=True, post_process=True)
            attention = model.decoder.layers[0].self_attention.core_attention
            found[f"{whose} {kind}"] = {
                "same frequencies": torch.equal(model.rotary_pos_emb.inv_freq, expected),
                "attention times": attention.scale * made.config.kv_channels**0.5,
                "expected": factor**2,
            }
    return {"positions": found}


def shared_embeddings() -> dict:
    """Where a tied Llama, a tied Qwen2 and, after it, an untied Qwen2 look for the weights of their output layer."""
    from mbridge.models import LLaMABridge, Qwen2Bridge
    from transformers import LlamaConfig, Qwen2Config

    shape = dict(num_hidden_layers=1, hidden_size=16, num_attention_heads=2, num_key_value_heads=2)
    patched = {one: one._adjust_mapping_for_shared_weights for one in (LLaMABridge, Qwen2Bridge)}
    found = {}
    for whose in ("patched", "upstream"):
        for one, method in patched.items():
            name = f"{one.__module__}:{one.__name__}._adjust_mapping_for_shared_weights"
            one._adjust_mapping_for_shared_weights = ORIGINALS[name] if whose == "upstream" else method
        tied = [LLaMABridge(LlamaConfig(**shape, tie_word_embeddings=True))]
        tied.append(Qwen2Bridge(Qwen2Config(**shape, tie_word_embeddings=True)))
        made = [*tied, Qwen2Bridge(Qwen2Config(**shape, tie_word_embeddings=False))]
        found[whose] = [one._weight_name_mapping_mcore_to_hf("output_layer.weight")[0] for one in made]
    return {"shared embeddings": found}


def generators() -> dict:
    random = importlib.import_module("megatron.core.tensor_parallel.random")
    get, put = (ORIGINALS[f"{random.__name__}:{name}"] for name in ("_get_cuda_rng_state", "_set_cuda_rng_state"))
    state = torch.get_rng_state()
    put(state)  # torch keeps it for a CUDA that is started later
    torch.set_rng_state(torch.Generator().manual_seed(1).get_state())
    random._set_cuda_rng_state(state)
    return {
        "generator": [reason(get), reason(random._get_cuda_rng_state)],
        "set": torch.equal(torch.get_rng_state(), state),
    }


def fp32() -> dict:
    config = importlib.import_module("verl.workers.config.engine").McoreEngineConfig
    patched = reason(config, dtype="float32")
    config.__post_init__ = ORIGINALS["verl.workers.config.engine:McoreEngineConfig.__post_init__"]
    return {"fp32": [reason(config, dtype="float32"), patched]}


def main() -> None:
    findings = {"imported by verl": IMPORTED_BY_VERL, **start_process_group()}
    from megatron.core import parallel_state

    parallel_state.initialize_model_parallel()
    for find in (fp32, bridge, generators, positions, shared_embeddings, optimizers, checkpoints):
        findings.update(find())
    print("FINDINGS", json.dumps(findings, indent=1))


if __name__ == "__main__":
    main()
