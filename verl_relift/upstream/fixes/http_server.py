"""The HTTP server of verl's rollout servers. A run asks them for text through Ray."""

import asyncio
import os
from types import ModuleType
from typing import Any

from ..registry import Where, patch, replace

# What Prometheus asks for.
_SERVED = ("/metrics", "/health")


@patch(
    where=Where.EVERYWHERE,
    replaces=("verl.workers.rollout.vllm_rollout.vllm_async_server:run_uvicorn",),
    versions=("verl",),
    upstream="serves all of vLLM's API on the node's address, without a key: sampling from the weights in training, "
    "loading LoRA adapters and more; here it serves nothing, or metrics where they are asked for",
    canary="test_verl_still_serves_all_of_vllms_api",
)
def serve_metrics_only(module: ModuleType) -> None:
    run = module.run_uvicorn

    async def run_metrics_server(app: Any, arguments: Any, address: str) -> tuple[int, asyncio.Task]:
        if not getattr(arguments, "serves_metrics", False):
            # In place of the port: verl tells servers apart by address and port.
            return os.getpid(), asyncio.create_task(asyncio.Event().wait())
        app.router.routes[:] = [route for route in app.router.routes if getattr(route, "path", None) in _SERVED]
        return await run(app, arguments, address)

    replace(module, "run_uvicorn", run_metrics_server)
