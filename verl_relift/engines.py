"""What verl, Megatron-Core, vLLM and Ray themselves say of a configuration, asked without starting any of them.

Groups such as `override_transformer_config` go to one of them as they are. Their keys must be fields of the class that
takes them, and that class must accept the values.
"""

import inspect
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .data import weight_files
from .schema import field_problems, name_problems

_ACTOR = "actor_rollout_ref.actor"
_ROLLOUT = "actor_rollout_ref.rollout"
_REFUSALS = (
    AssertionError,
    AttributeError,
    ImportError,
    KeyError,
    NotImplementedError,
    TypeError,
    ValueError,
    InstantiationException,
    OmegaConfBaseException,
)

# Fields that have a key of their own, or that the model decides.
_PARALLEL = {
    name: f"{_ACTOR}.megatron.{name}"
    for name in (
        "tensor_model_parallel_size",
        "pipeline_model_parallel_size",
        "virtual_pipeline_model_parallel_size",
        "context_parallel_size",
        "expert_model_parallel_size",
        "expert_tensor_parallel_size",
        "sequence_parallel",
    )
}
_DTYPE = dict.fromkeys(("params_dtype", "pipeline_dtype", "bf16", "fp16"), f"{_ACTOR}.megatron.dtype")
_SHAPE = dict.fromkeys(
    (
        "num_layers",
        "hidden_size",
        "num_attention_heads",
        "num_query_groups",
        "ffn_hidden_size",
        "kv_channels",
        "layernorm_epsilon",
        "normalization",
        "gated_linear_unit",
        "add_bias_linear",
        "add_qkv_bias",
        "qk_layernorm",
        "num_moe_experts",
        "variable_seq_lengths",
    ),
    "it in the model's config.json",
)
_OPTIMIZER = {name: f"{_ACTOR}.optim.{name}" for name in ("lr", "min_lr", "clip_grad", "weight_decay", "optimizer")}
_DISTRIBUTED = {"use_distributed_optimizer": f"{_ACTOR}.megatron.use_distributed_optimizer"}
_VLLM = {
    name: f"{_ROLLOUT}.{key or name}"
    for name, key in {
        "dtype": None,
        "load_format": None,
        "max_model_len": None,
        "max_num_seqs": None,
        "enable_chunked_prefill": None,
        "max_num_batched_tokens": None,
        "enable_prefix_caching": None,
        "enable_sleep_mode": None,
        "logprobs_mode": None,
        "enforce_eager": None,
        "gpu_memory_utilization": None,
        "disable_log_stats": None,
        "seed": None,
        "quantization": None,
        "scheduling_policy": None,
        "tensor_parallel_size": "tensor_model_parallel_size",
        "data_parallel_size": None,
        "pipeline_parallel_size": "pipeline_model_parallel_size",
        "enable_expert_parallel": "expert_parallel_size",
    }.items()
} | {
    "model": "actor_rollout_ref.model.path",
    "tokenizer": "actor_rollout_ref.model.tokenizer_path",
    "trust_remote_code": "actor_rollout_ref.model.trust_remote_code",
    "skip_tokenizer_init": "nothing: the tokenizer is needed",
    "distributed_executor_backend": "nothing: verl starts vLLM's workers as processes",
    "worker_extension_cls": "nothing: the weights come through verl's",
}


def verl_problems(config: DictConfig) -> Iterator[str]:
    """Yield what verl's validation and the classes of its groups refuse."""
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config

    groups = [_ACTOR, _ROLLOUT, f"{_ROLLOUT}.checkpoint_engine", "algorithm"]
    groups += ["distillation"] if config.distillation.enabled else []
    groups += ["reward.reward_model"] if config.reward.reward_model.enable else []
    try:
        with redirect_stdout(io.StringIO()):  # it prints that all is well
            validate_config(config, need_reference_policy(config), need_critic(config))
        for group in groups:
            omega_conf_to_dataclass(OmegaConf.select(config, group))
        _correct_nothing(config.algorithm.rollout_correction)
    except _REFUSALS as error:
        yield f"verl refuses the configuration: {_first_line(error)}"


def named_problems(config: DictConfig) -> Iterator[str]:
    """Yield which classes and files that the configuration names cannot be loaded, each by verl's own loader."""
    from verl.utils.dataset.rl_dataset import get_dataset_class
    from verl.utils.import_utils import load_class_from_fqn, load_extern_type

    rollout, sampler = config.actor_rollout_ref.rollout, config.trainer.v1.sampler.custom_sampler
    loaders = {
        "data.custom_cls.path": lambda _: get_dataset_class(config.data),
        "trainer.v1.sampler.custom_sampler.path": lambda path: load_extern_type(path, sampler.name),
        "trainer.checkpoint_callback_class": load_class_from_fqn,
        f"{_ROLLOUT}.agent.agent_loop_manager_class": load_class_from_fqn,
    }
    for key, load in loaders.items():
        value = OmegaConf.select(config, key)
        try:
            if value:
                load(value)
        except Exception as error:  # a file of the user's may raise anything
            yield f"{key}={value} cannot be loaded: {_first_line(error)}"
    for name in ("agent.agent_loop_config_path", "multi_turn.tool_config_path", "multi_turn.function_tool_path"):
        path = OmegaConf.select(rollout, name)
        if path and not Path(path).expanduser().exists():
            yield f"{_ROLLOUT}.{name}={path}: no such file"


def _correct_nothing(correction: DictConfig | None) -> None:
    """Correct one token by verl's function, which is what checks the modes and thresholds."""
    import torch
    from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_and_rejection_mask

    if correction is None or not (correction.rollout_is or correction.rollout_rs):
        return
    names = ("rollout_is", "rollout_is_threshold", "rollout_is_batch_normalize", "rollout_rs", "rollout_rs_threshold")
    values, token = {name: correction[name] for name in names}, torch.zeros(1, 1)
    compute_rollout_correction_and_rejection_mask(token, token, torch.ones(1, 1), **values)


def megatron_problems(config: DictConfig) -> Iterator[str]:
    """Yield what Megatron-Core refuses of the groups that go to it, the model aside."""
    from megatron.core.distributed import DistributedDataParallelConfig
    from megatron.core.optimizer import OptimizerConfig
    from megatron.core.transformer import TransformerConfig

    engine, optim = config.actor_rollout_ref.actor.megatron, config.actor_rollout_ref.actor.optim
    override = _plain(engine.override_transformer_config)
    name = f"{_ACTOR}.megatron.override_transformer_config"
    yield from field_problems(name, override, TransformerConfig, _PARALLEL | _DTYPE | _SHAPE)
    name = "actor_rollout_ref.ref.megatron.override_transformer_config"
    override = _plain(config.actor_rollout_ref.ref.megatron.override_transformer_config)
    yield from field_problems(name, override, TransformerConfig, _PARALLEL | _DTYPE | _SHAPE)
    name = f"{_ACTOR}.megatron.override_ddp_config"
    yield from field_problems(name, _plain(engine.override_ddp_config), DistributedDataParallelConfig, _DISTRIBUTED)
    name = f"{_ACTOR}.optim.override_optimizer_config"
    override = _plain(optim.override_optimizer_config)
    yield from field_problems(name, override, OptimizerConfig, _OPTIMIZER | _DISTRIBUTED | _DTYPE)
    yield from _bridge_problems(config)


def _bridge_problems(config: DictConfig) -> Iterator[str]:
    from mbridge.core import Bridge

    known = set(inspect.signature(Bridge.save_weights).parameters) - {"self", "models", "weights_path"}
    group = f"{_ACTOR}.checkpoint.mbridge_config"
    yield from name_problems(group, _plain(config.actor_rollout_ref.actor.checkpoint.mbridge_config), known, "mbridge")


def optimizer_problems(config: DictConfig) -> Iterator[str]:
    """Yield what Megatron-Core refuses of the optimizer and its learning-rate schedule."""
    from verl.utils.config import omega_conf_to_dataclass
    from verl.utils.megatron.optimizer import get_megatron_optimizer_param_scheduler, init_megatron_optim_config

    actor = config.actor_rollout_ref.actor
    dtype = actor.megatron.dtype
    steps = config.trainer.total_training_steps or 1_000_000
    try:
        with redirect_stdout(io.StringIO()):
            optim = omega_conf_to_dataclass(actor.optim)
            optim.total_training_steps = steps
            init_megatron_optim_config(optim, fp16=dtype == "float16", bf16=dtype == "bfloat16")
            schedule = get_megatron_optimizer_param_scheduler(SimpleNamespace(param_groups=[{}]), optim)
        for step in {0, 1, schedule.lr_decay_steps // 2, schedule.lr_decay_steps, schedule.lr_decay_steps + 1}:
            schedule.num_steps = step
            schedule.get_lr({})
    except Exception as error:  # Megatron raises bare exceptions
        yield f"Megatron refuses {_ACTOR}.optim: {_first_line(error)}"


def weight_problems(config: DictConfig) -> Iterator[str]:
    """Yield that mbridge would find no weights or a part: it reads them beside config.json, all that it downloads."""
    from transformers.utils import cached_file

    path = config.actor_rollout_ref.model.path
    folder = Path(cached_file(path, "config.json")).parent
    index = folder / "model.safetensors.index.json"
    names = sorted({*json.loads(index.read_text())["weight_map"].values()}) if index.exists() else ["*.safetensors"]
    lacking = next((name for name in names if not any(folder.glob(name))), None)
    if lacking:
        fix = "give a folder with all files of the model" if Path(path).is_dir() else f"run: hf download {path}"
        yield f"actor_rollout_ref.model.path={path}: weights are missing (no {lacking} in {folder}); {fix}"
        return
    for file in sorted({file for name in names for file in folder.glob(name)}):
        if problem := weight_files.fault(file):
            yield f"actor_rollout_ref.model.path={path}: {file} {problem}"
            return


def transformer_problems(config: DictConfig, hf: Any) -> Iterator[str]:
    """Yield what Megatron-Core refuses of a model as mbridge describes it.

    Args:
        hf: the model's Hugging Face configuration.
    """
    import torch
    from mbridge.core.parallel_states import ParallelStates
    from verl.models.mcore.mbridge import AutoBridge
    from verl.utils.megatron_utils import mapping_string_to_attn_backend

    engine = config.actor_rollout_ref.actor.megatron
    states = ParallelStates(
        tp_size=engine.tensor_model_parallel_size,
        pp_size=engine.pipeline_model_parallel_size,
        vpp_size=engine.virtual_pipeline_model_parallel_size,
        cp_size=engine.context_parallel_size,
    )
    try:
        bridge = AutoBridge.from_config(hf, dtype=getattr(torch, engine.dtype), parallel_states=states)
        bridge.set_extra_args(**mapping_string_to_attn_backend(_plain(engine.override_transformer_config)))
    except Exception as error:  # mbridge and Megatron raise bare exceptions
        yield f"Megatron refuses the model with {_ACTOR}.megatron: {_first_line(error)}"


def vllm_problems(config: DictConfig) -> Iterator[str]:
    """Yield what vLLM refuses of `engine_kwargs.vllm`, which becomes arguments of its command line."""
    group, values = f"{_ROLLOUT}.engine_kwargs.vllm", _plain(config.actor_rollout_ref.rollout.engine_kwargs.vllm)
    if not values:
        return
    with _environment_kept():  # vLLM sets variables for itself, which Ray's processes would get
        from verl.workers.rollout.vllm_rollout.utils import build_cli_args_from_config
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.utils.argparse_utils import FlexibleArgumentParser

    known = {field.name for field in fields(AsyncEngineArgs)}
    unknown = list(name_problems(group, values, known, "vLLM"))
    taken = [f"{group}.{name}={values[name]}: set {_VLLM[name]} instead" for name in values if name in _VLLM]
    yield from [*unknown, *taken]
    if unknown or taken:
        return
    parser = AsyncEngineArgs.add_cli_args(FlexibleArgumentParser())
    message = io.StringIO()
    try:
        with redirect_stderr(message):
            arguments = parser.parse_args(build_cli_args_from_config(values))
            # Offline, vLLM looks for the model at once, by default for one of its own; but not for a folder.
            arguments.model = os.curdir
            AsyncEngineArgs.from_cli_args(arguments)
    except SystemExit:
        lines = [line for line in message.getvalue().splitlines() if line.strip()]
        yield f"vLLM refuses {group}: {lines[-1].partition('error: ')[2] or lines[-1]}"
    except Exception as error:
        yield f"vLLM refuses {group}: {_first_line(error)}"


@contextmanager
def _environment_kept() -> Iterator[None]:
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def ray_problems(config: DictConfig) -> Iterator[str]:
    """Yield what `ray.init` does not know of `ray_kwargs.ray_init`."""
    import ray
    from ray.runtime_env import RuntimeEnv

    values = _plain(config.ray_kwargs.ray_init)
    parameters = inspect.signature(ray.init).parameters.values()
    known = {p.name for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD} | {"_temp_dir"}
    yield from name_problems("ray_kwargs.ray_init", values, known, "Ray")
    runtime = values.get("runtime_env") or {}
    yield from name_problems("ray_kwargs.ray_init.runtime_env", runtime, RuntimeEnv.known_fields, "Ray")
    for name in ("num_cpus", "num_gpus", "object_store_memory"):
        value = values.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
            yield f"ray_kwargs.ray_init.{name}={value} must be a whole number of at least 0, or null"


def _plain(group: DictConfig | None) -> dict[str, Any]:
    return OmegaConf.to_container(group, resolve=True) if group is not None else {}


def _first_line(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
