"""A checkpoint's memory: what verl's checkpoint manager gathers before it writes."""

from .memory import Memory

SAVE = "checkpoint"


def trace_save(worker, memory: Memory) -> None:
    """Gather the optimizer's state as for a checkpoint. Nothing is written, so the writer's copies are not counted."""
    manager = worker.actor.engine.checkpoint_mananager
    with memory.phase(SAVE), memory.of("checkpoint"):
        metadata = manager._build_sharded_state_dict_metadata()
        model = manager._build_model_sharded_state_dict(metadata)
        manager._build_optimizer_state_dict(model, metadata)
