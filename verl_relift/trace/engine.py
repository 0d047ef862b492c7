"""verl's Megatron engine in one process that stands for one rank of many."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
import torch.distributed as dist
from megatron.core.transformer.module import Float16Module
from torch.testing._internal.distributed.fake_pg import FakeStore
from verl.utils.megatron_utils import unwrap_model
from verl.workers.engine import EngineRegistry
from verl.workers.engine.megatron.transformer_impl import MegatronEngineWithLMHead
from verl.workers.engine_workers import TrainingWorker

from ..actor.worker import DemonstrationWorker
from .layers import use_stand_ins
from .phantom import is_phantom

_MODEL_TYPE = "traced_language_model"  # verl's registry finds `TracedEngine` by it


@EngineRegistry.register(model_type=_MODEL_TYPE, backend="megatron", device="cpu")
class TracedEngine(MegatronEngineWithLMHead):
    """verl's engine with random weights, with groups of the fake backend, and with what stands in for kernels."""

    transformer_engine = True  # whether the layers stand for Transformer Engine's

    def _build_tf_config(self) -> None:
        super()._build_tf_config()
        self.bridge.load_weights = lambda *_, **__: None
        if self.transformer_engine:
            local_spec = self.bridge._get_transformer_layer_spec
            self.bridge._get_transformer_layer_spec = lambda *args: use_stand_ins(local_spec(*args))

    def _build_megatron_module(self):
        chunks = super()._build_megatron_module()
        for chunk in chunks:
            chunk.module.register_forward_hook(_cast_output, with_kwargs=True)
        return chunks


def _cast_output(module: Float16Module, arguments: tuple, settings: dict, output):
    """Return the logits in fp32. `Float16Module` casts them by the class of the tensor, which a phantom has not."""
    last = unwrap_model(module).post_process and settings.get("fp32_output", True)
    return output.float() if last and is_phantom(output) else output


@contextmanager
def fake_group(rank: int, world_size: int) -> Iterator[None]:
    """Make this process `rank` of groups whose other members do not exist, whatever backend is asked for."""
    new_group = dist.new_group

    def new_fake_group(*args, backend=None, pg_options=None, **settings):
        return new_group(*args, backend="fake", **settings)

    dist.init_process_group("fake", rank=rank, world_size=world_size, store=FakeStore())
    dist.new_group = new_fake_group
    try:
        yield
    finally:
        dist.new_group = new_group


class _TrainingWorker(TrainingWorker):
    def __init__(self, config):
        super().__init__(replace(config, model_type=_MODEL_TYPE))


class TracedWorker(DemonstrationWorker):
    """The worker of training, with `TracedEngine`."""

    actor_worker_cls = _TrainingWorker
    ref_worker_cls = _TrainingWorker


def weights_of(engine) -> list[torch.Tensor]:
    """Return the tensors whose storages hold an engine's weights."""
    return [parameter.data for chunk in engine.module for parameter in chunk.parameters()]


def gradients_of(engine) -> list[torch.Tensor]:
    """Return the tensors whose storages hold an engine's gradients."""
    return [buffer.grad_data for chunk in engine.module for buffer in chunk.buffers + chunk.expert_parallel_buffers]


def optimizer_of(engine) -> list[torch.Tensor]:
    """Return the tensors of an engine's optimizer: its master copy of the weights and AdamW's state."""
    found = []
    for part in getattr(engine.optimizer, "chained_optimizers", [engine.optimizer]):
        for group in part.optimizer.param_groups:
            for parameter in group["params"]:
                found += [parameter, *_tensors(part.optimizer.state[parameter])]
    return found


def second_optimizer_of(worker) -> list[torch.Tensor]:
    """Return the tensors of the supervised update's own moments, which wait while the RL update's are in use."""
    waiting = worker._moments._waiting.values() if worker._moments is not None else ()
    return [tensor for state in waiting for tensor in _tensors(state)]


def _tensors(state: dict) -> list[torch.Tensor]:
    return [value for value in state.values() if torch.is_tensor(value)]
