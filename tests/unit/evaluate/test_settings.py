"""What an evaluation writes about itself names no secret, and its vLLM keeps to this machine."""

import json
import os
from pathlib import Path

import pytest

from verl_relift.evaluate.engine import prepare_environment
from verl_relift.evaluate.protocol import Sampling
from verl_relift.evaluate.questions import DataFile
from verl_relift.evaluate.run import Job, _settings
from verl_relift.evaluate.tokens import ModelFolder
from verl_relift.rewards import GradingRules

SECRET = "hf_" + "a1B2" * 6


def settings(model: str = "model", file: str = "data.parquet") -> str:
    folder = ModelFolder(Path(model), "Qwen2ForCausalLM", "0" * 64, 4096, 1000)
    sampling = Sampling(1, {}, 0.0, 1.0, 16, 0)
    job = Job(folder, [], [DataFile(file, "0" * 64, 3)], sampling, GradingRules(), Path("out"))
    return json.dumps(_settings(job, "{{ messages }}"))


@pytest.mark.parametrize(
    "named", [{"model": f"/models/{SECRET}"}, {"file": f"data-token={SECRET}.parquet"}, {"file": f"x&sig={SECRET}"}]
)
def test_names_of_models_and_files_hide_what_looks_like_a_secret(named):
    assert SECRET in json.dumps(named)
    assert SECRET not in settings(**named) and "***" in settings(**named)


def test_other_names_stay():
    assert '"model": "qwen2.5-math-7b"' in settings(model="models/qwen2.5-math-7b")
    assert '"file": "math500_tokens=8k.parquet"' in settings(file="math500_tokens=8k.parquet")


@pytest.mark.parametrize("given", [None, "eth7"])
def test_vllm_keeps_to_loopback_unless_told_otherwise(monkeypatch, given):
    monkeypatch.setattr(os, "environ", {"PATH": os.environ["PATH"]} | ({"GLOO_SOCKET_IFNAME": given} if given else {}))
    prepare_environment(1, verbose=False)
    assert os.environ["VLLM_HOST_IP"] == "127.0.0.1" and os.environ["NCCL_SOCKET_IFNAME"] == "lo"
    assert os.environ["GLOO_SOCKET_IFNAME"] == (given or "lo")


@pytest.mark.parametrize(
    ("width", "tensor_parallel", "replicas", "threads"),
    [(128, 1, None, 7), (576, 1, None, 8), (896, 2, None, 4), (576, 1, 2, 4), (576, 1, 16, 1), (128, 1, 16, 1)],
)
def test_engines_on_a_cpu_share_out_its_cores(monkeypatch, width, tensor_parallel, replicas, threads):
    """A narrow model leaves a core to grading."""
    monkeypatch.setattr(os, "environ", {"PATH": os.environ["PATH"]})
    monkeypatch.setattr("verl_relift.run.threads.usable_cores", lambda: 8)
    prepare_environment(tensor_parallel, verbose=False, width=width, replicas=replicas)
    assert os.environ["OMP_NUM_THREADS"] == str(threads)
