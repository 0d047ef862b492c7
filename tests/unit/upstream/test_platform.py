"""The platform's patches: narrow, loud, and still needed."""

import asyncio
import importlib
import os
import subprocess
import sys
import textwrap
from itertools import pairwise

import pytest
import torch
import verl  # noqa: F401  loads the plugin
from verl.plugin.platform import get_platform

from verl_relift.upstream import post_import
from verl_relift.upstream import versions as upstream

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the CPU platform is not used beside a GPU")


def run_python(code: str, **environment) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )


def test_verl_finds_the_cpu_platform():
    platform = get_platform()
    assert (platform.device_name, platform.communication_backend_name()) == ("cpu", "gloo")
    assert platform.ray_resource_name() == "GPU"
    assert torch.zeros(2).to(platform.current_device()).device.type == "cpu"


FAULTS = """
import resource, torch, verl
size, faults = 64 << 18, []
for _ in range(10):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(size).sum()
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(faults[1:]))
"""


def faults_of_a_tensor(**choice: str) -> int:
    """Page faults of a tensor as large as the one freed before it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    ran = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, env={**environment, **choice})
    assert ran.returncode == 0, ran.stderr
    return int(ran.stdout.splitlines()[-1])


def test_memory_of_freed_tensors_is_kept_for_the_next_but_where_the_user_says_otherwise():
    assert faults_of_a_tensor() * 10 < faults_of_a_tensor(MALLOC_MMAP_THRESHOLD_="1048576")


def test_torch_is_not_patched_for_anyone_but_megatron():
    layers = importlib.import_module("megatron.core.tensor_parallel.layers")
    assert layers.torch.empty(2, device="cuda").device.type == "cpu"
    assert layers.torch.cuda.current_device() == torch.device("cpu")
    assert layers.torch.Tensor is torch.Tensor
    with pytest.raises((AssertionError, RuntimeError)):
        torch.empty(2, device="cuda")
    with pytest.raises((AssertionError, RuntimeError)):
        torch.cuda.current_device()


def test_tensor_type_is_restored_after_an_optimizer_check():
    from verl_relift.upstream.cpu.megatron import _with_cuda_type_names

    seen = []
    _with_cuda_type_names(lambda: seen.append(torch.zeros(1).type()))()
    assert seen == ["torch.cuda.FloatTensor"]
    assert torch.zeros(1).type() == "torch.FloatTensor"


def test_megatron_still_hard_wires_cuda():
    """The day these fail, the patches of platforms/megatron_cpu.py can go."""
    import inspect

    optimizer = importlib.import_module("megatron.core.optimizer.distrib_optimizer")
    layers = importlib.import_module("megatron.core.tensor_parallel.layers")
    assert "torch.cuda.FloatTensor" in inspect.getsource(optimizer)
    assert "torch.cuda.current_device()" in inspect.getsource(layers)


def test_vllm_still_throws_weights_away_after_packing():
    """The day this fails, `_keep_weights_after_packing` can go."""
    from importlib.util import find_spec
    from pathlib import Path

    source = (Path(find_spec("vllm").origin).parent / "model_executor/layers/linear.py").read_text()
    assert "dispatch_cpu_unquantized_gemm(layer, remove_weight=True)" in source


def test_one_rank_of_vllm_is_in_its_engines_process_and_two_are_not(tmp_path):
    result = run_python(
        f"""
        from verl_relift.quickstart.random_model import main
        import sys
        sys.argv[1:] = ["--output", "{tmp_path}"]
        main()
        from vllm import EngineArgs
        for size in (1, 2):
            arguments = EngineArgs(model="{tmp_path}", tensor_parallel_size=size, distributed_executor_backend="mp")
            print("backend", arguments.create_engine_config().parallel_config.distributed_executor_backend)
        """
    )
    found = [line.split()[1] for line in result.stdout.splitlines() if line.startswith("backend ")]
    assert found == ["uni", "mp"], result.stderr[-3000:]


def test_who_waits_for_a_message_of_vllm_sleeps():
    result = run_python(
        """
        import threading, time
        from verl_relift.upstream.cpu import vllm as vllm_cpu
        vllm_cpu.install()
        from vllm.distributed.device_communicators.shm_broadcast import MessageQueue
        writer = MessageQueue(1, 1)
        reader = MessageQueue.create_from_handle(writer.export_handle(), 0)
        ready = threading.Thread(target=reader.wait_until_ready)
        ready.start()
        writer.wait_until_ready()
        ready.join()
        got = []
        threading.Thread(target=lambda: got.extend(reader.dequeue() for _ in range(2)), daemon=True).start()
        writer.enqueue("first")
        before = time.process_time()
        time.sleep(0.8)
        print("busy", time.process_time() - before)
        writer.enqueue("second")
        time.sleep(0.2)
        print("got", *got)
        """
    )
    assert "got first second" in result.stdout, result.stderr[-3000:]
    [busy] = [float(line.split()[1]) for line in result.stdout.splitlines() if line.startswith("busy ")]
    assert busy < 0.3  # without the patch it spins for a second after each message


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
    """The day this fails, `platforms/verl_rollout.py` can go."""
    import inspect

    llm_server = importlib.import_module("verl.workers.rollout.llm_server")
    assert "await instance._init_global_load_balancer()" in inspect.getsource(llm_server.LLMServerManager.create)


def test_one_stage_broadcasts_nothing_and_several_do(monkeypatch):
    from types import SimpleNamespace

    from megatron.core import parallel_state

    from verl_relift.upstream.local_spec.bridge import keep_to_one_stage

    broadcast = []
    names = ("broadcast_from_megatron_pp", "broadcast_str_from_megatron_pp")
    bridge = SimpleNamespace(**{name: lambda value: broadcast.append(value) or value for name in names})
    keep_to_one_stage(bridge)
    for stages, expected in ((1, []), (2, ["weight", "weight"])):
        monkeypatch.setattr(parallel_state, "get_pipeline_model_parallel_world_size", lambda s=stages: s)
        assert [getattr(bridge, name)("weight") for name in names] == ["weight", "weight"]
        assert broadcast == expected


def test_mbridge_still_broadcasts_within_one_stage():
    """The day this fails, `keep_to_one_stage` can go."""
    import inspect

    util = importlib.import_module("mbridge.core.util")
    for function in (util.broadcast_from_megatron_pp, util.broadcast_str_from_megatron_pp):
        assert "all_gather_object" in inspect.getsource(function)
        assert "world_size() == 1" not in inspect.getsource(function)


def test_the_local_attention_equals_a_loop_over_sequences():
    from megatron.core.packed_seq_params import PackedSeqParams
    from megatron.core.transformer.transformer_config import TransformerConfig

    from verl_relift.upstream.local_spec.layers import LocalDotProductAttention

    config = TransformerConfig(num_layers=1, hidden_size=32, num_attention_heads=4, num_query_groups=2)
    attention = LocalDotProductAttention(config, layer_number=1)
    lengths = [3, 7, 1]
    q, k, v = (torch.randn(sum(lengths), heads, 8) for heads in (4, 2, 2))
    starts = torch.tensor([0, 3, 10, 11], dtype=torch.int32)
    packed = attention(q, k, v, None, packed_seq_params=PackedSeqParams(qkv_format="thd", cu_seqlens_q=starts))
    for first, last in pairwise(starts):
        one = attention(*(t[first:last].unsqueeze(1) for t in (q, k, v)), None)
        torch.testing.assert_close(packed[first:last], one.squeeze(1), atol=1e-6, rtol=0)


def test_a_plugin_that_fails_to_load_stops_the_process_with_its_reason():
    result = run_python(
        """
        import verl_relift.upstream.versions as upstream
        upstream.SUPPORTED["verl"] = ("0.1.0",)
        import verl
        print("went on")
        """
    )
    assert result.returncode != 0
    assert "went on" not in result.stdout
    assert "patches are written for 0.1.0" in result.stderr


def test_a_missing_package_and_an_unsupported_version_are_named(monkeypatch):
    monkeypatch.setitem(upstream.SUPPORTED, "no-such-package", ("1",))
    with pytest.raises(upstream.UnsupportedVersion, match="no-such-package is not installed"):
        upstream.require("no-such-package")
    monkeypatch.setitem(upstream.SUPPORTED, "mbridge", ("0.1",))
    with pytest.raises(upstream.UnsupportedVersion, match=r"mbridge 0\.15\.1 is installed.* written for 0\.1;"):
        upstream.require("mbridge")


def test_hooks_run_after_import_and_only_then(tmp_path, monkeypatch):
    package = tmp_path / "hooked_package"
    package.mkdir()
    (package / "__init__.py").write_text("value = 1\n")
    (package / "part.py").write_text("value = 2\n")
    monkeypatch.syspath_prepend(tmp_path)
    seen = []
    post_import.after_import("hooked_package.part", lambda module: seen.append(("exact", module.value)))
    post_import.after_import_of_package("hooked_package", lambda module: seen.append(("package", module.__name__)))
    assert seen == []
    importlib.import_module("hooked_package.part")
    assert seen == [("package", "hooked_package"), ("exact", 2), ("package", "hooked_package.part")]


def test_importing_verl_does_not_import_megatron_or_vllm():
    """Ten processes import verl; what they don't use must not cost them seconds."""
    result = run_python(
        """
        import sys, verl
        print([name for name in ("megatron.core.optimizer", "vllm", "mbridge") if name in sys.modules])
        """
    )
    assert result.stdout.strip().endswith("[]"), result.stdout + result.stderr
