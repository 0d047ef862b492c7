"""Entry point `verl.plugins`: make this process able to run verl_relift on the hardware that is there.

verl logs a plugin that fails to load at debug level and continues without it, which would surface minutes later as an
unrelated error. A failure here ends the process with the reason instead.
"""

import os
import sys
import traceback


def _load() -> None:
    from ..run import garbage, toolkit

    garbage.defer()

    import torch

    from . import registry, transformer_engine, versions

    # They declare their patches, as the modules below do.
    from .fixes import (  # noqa: F401
        checkpoint_pickles,
        checkpoint_results,
        deprecation,
        distributed_optimizer,
        http_server,
        model_type,
        root_logger,
        rope,
        tied_embeddings,
        torch_store,
        tracker_secrets,
        weight_socket,
    )
    from .fixes import transfer_queue as authentication  # noqa: F401  not the speed patches of that name
    from .local_spec import bridge  # noqa: F401
    from .post_import import before_import
    from .registry import Where
    from .speed import broadcasts, output_layer, rotary, router, rows, transfer_queue, weight_transfer  # noqa: F401

    versions.require("verl")
    where = [Where.EVERYWHERE, Where.LOCAL_SPEC]

    platform = os.environ.get("VERL_PLATFORM", "").strip().lower()
    _refuse_unknown(platform)
    if platform == "cpu" or (not platform and not torch.cuda.is_available()):
        os.environ["VERL_PLATFORM"] = "cpu"
        from .cpu import megatron, verl  # noqa: F401
        from .cpu import platform as _  # noqa: F401  registers it with verl
        from .fixes import gloo_exchange  # noqa: F401
        from .speed import malloc, swiglu  # noqa: F401

        transformer_engine.rule_out("Transformer Engine's layers run on CUDA only, and this process is to use the CPU")
        where.append(Where.CPU)
    else:
        toolkit.use_installed()
        for user in transformer_engine.USERS:
            before_import(user, transformer_engine.usable)
    registry.install(*where)


def _refuse_unknown(platform: str) -> None:
    from verl.plugin.platform import PlatformRegistry

    known = sorted({*PlatformRegistry.registered_names(), "cpu"})
    if platform and platform not in known:
        raise ValueError(f"VERL_PLATFORM={platform}: verl knows {', '.join(known)}; unset it to use what is there")


try:
    _load()
except Exception as error:
    # SystemExit passes verl's `except Exception`; os._exit would skip flushing the reason.
    traceback.print_exc()
    sys.stderr.flush()
    raise SystemExit(f"verl_relift: the plugin failed to load: {error}") from error
