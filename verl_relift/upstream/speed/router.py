"""verl's request router, an actor that spreads the agent loop's calls over the vLLM servers."""

import functools
from types import ModuleType

from ..registry import Where, patch, replace

_MANAGER = "verl.workers.rollout.llm_server:LLMServerManager"


@patch(
    where=Where.EVERYWHERE,
    replaces=(f"{_MANAGER}._init_global_load_balancer", f"{_MANAGER}.get_client"),
    versions=("verl",),
    upstream="starts the router with the vLLM servers: an actor that imports all of verl, ten seconds of a core, and "
    "that rollouts in batches never call; here it starts with the first client",
    canary="test_verl_still_starts_its_router_with_the_servers",
)
def start_router_when_asked(llm_server: ModuleType) -> None:
    manager = llm_server.LLMServerManager
    start, get_client = manager._init_global_load_balancer, manager.get_client

    async def put_off(self) -> None:
        self.global_load_balancer = None

    @functools.wraps(get_client)
    def get_client_of_router(self, *args, **kwargs):
        if self.global_load_balancer is None:
            llm_server.auto_await(start)(self)
        return get_client(self, *args, **kwargs)

    replace(manager, "_init_global_load_balancer", put_off)
    replace(manager, "get_client", get_client_of_router)
