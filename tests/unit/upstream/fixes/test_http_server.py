"""The HTTP server of a rollout server: off, or metrics only."""

import asyncio
import inspect
import json
import os
import urllib.error
import urllib.request
from types import SimpleNamespace

import pytest
import verl  # noqa: F401  loads the plugin
from fastapi import FastAPI
from verl.workers.rollout.vllm_rollout import vllm_async_server

from verl_relift.upstream.registry import ORIGINALS

NAME = "verl.workers.rollout.vllm_rollout.vllm_async_server:run_uvicorn"


def app() -> FastAPI:
    made = FastAPI()
    for path in ("/metrics", "/health", "/v1/models", "/v1/load_lora_adapter", "/invocations"):
        made.add_api_route(path, lambda: {"served": True})
    return made


def status(port: int, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            json.load(answer)
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


async def statuses(run, arguments) -> dict[str, int]:
    port, task = await run(app(), arguments, "127.0.0.1")
    try:
        return {
            path: await asyncio.to_thread(status, port, path) for path in ("/metrics", "/v1/models", "/invocations")
        }
    finally:
        task.cancel()


def test_verl_still_serves_all_of_vllms_api():
    """The day this fails, `fixes/http_server.py` can go."""
    source = inspect.getsource(vllm_async_server.vLLMHttpServer.run_server)
    assert "app = build_app(args" in source and "run_uvicorn(app, args, self._server_address)" in source
    found = asyncio.run(statuses(ORIGINALS[NAME], SimpleNamespace()))
    assert set(found.values()) == {200}


def test_nothing_is_served_unless_it_is_asked_for():
    async def run() -> None:
        number, task = await vllm_async_server.run_uvicorn(app(), SimpleNamespace(serves_metrics=False), "127.0.0.1")
        assert number == os.getpid()  # which tells it from another server on the host
        assert not task.done()
        task.cancel()

    asyncio.run(run())


@pytest.mark.parametrize("missing", ["/v1/models", "/invocations"])
def test_prometheus_gets_metrics_and_nothing_else(missing):
    found = asyncio.run(statuses(vllm_async_server.run_uvicorn, SimpleNamespace(serves_metrics=True)))
    assert found["/metrics"] == 200 and found[missing] == 404
