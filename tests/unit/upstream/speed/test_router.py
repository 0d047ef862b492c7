"""verl's request router starts with its first client."""

import asyncio
import importlib
import inspect

import verl  # noqa: F401  loads the plugin


def test_verls_request_router_starts_with_its_first_client(monkeypatch):
    llm_server = importlib.import_module("verl.workers.rollout.llm_server")
    router = importlib.import_module("verl.workers.rollout.router")
    started = []
    monkeypatch.setattr(router, "get_router_handle", lambda **kwargs: started.append(kwargs) or "router")
    manager = llm_server.LLMServerManager.__new__(llm_server.LLMServerManager)
    manager.config, manager.rollout_config, manager._load_balancer_cls = None, None, None
    manager.server_addresses, manager.server_handles = ["a"], ["handle"]
    asyncio.run(manager._init_global_load_balancer())
    assert started == []

    class Client:
        def __init__(self, config, load_balancer_handle):
            self.router = load_balancer_handle

    assert [manager.get_client(Client).router for _ in range(2)] == ["router", "router"]
    assert [arguments["servers"] for arguments in started] == [{"a": "handle"}]


def test_verl_still_starts_its_router_with_the_servers():
    """The day this fails, `speed/router.py` can go."""
    llm_server = importlib.import_module("verl.workers.rollout.llm_server")
    assert "await instance._init_global_load_balancer()" in inspect.getsource(llm_server.LLMServerManager.create)
