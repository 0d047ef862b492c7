"""A checkpoint's memory: what verl's checkpoint manager gathers before it writes."""

from .memory import Memory

SAVE = "checkpoint"


def trace_save(worker, memory: Memory) -> None:
    """Gather the optimizer's state as for a checkpoint, and copy what this rank would write.

    Nothing is written. The writer copies every tensor that is a part of a larger one, which all gathered ones are;
    the ranks that have the state share the work.
    """
    manager = worker.actor.engine.checkpoint_mananager
    with memory.phase(SAVE), memory.of("checkpoint"):
        metadata = manager._build_sharded_state_dict_metadata()
        model = manager._build_model_sharded_state_dict(metadata)
        state = manager._build_optimizer_state_dict(model, metadata)
        return state
