"""verl's request router, an actor that spreads the agent loop's calls over the vLLM servers.

It imports all of verl, ten seconds of a core at every start, and rollouts in batches never call it.
"""

import functools
from types import ModuleType


def start_router_when_asked(llm_server: ModuleType) -> None:
    """``verl.workers.rollout.llm_server``: the router starts with the first client of the servers, not with them."""
    manager = llm_server.LLMServerManager
    start, get_client = manager._init_global_load_balancer, manager.get_client

    async def put_off(self) -> None:
        self.global_load_balancer = None

    @functools.wraps(get_client)
    def get_client_of_router(self, *args, **kwargs):
        if self.global_load_balancer is None:
            llm_server.auto_await(start)(self)
        return get_client(self, *args, **kwargs)

    manager._init_global_load_balancer = put_off
    manager.get_client = get_client_of_router
