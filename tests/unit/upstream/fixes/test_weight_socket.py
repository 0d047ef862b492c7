"""Weights come from this user's processes only, in messages that run no code."""

import inspect
import json
import os
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
import torch
import verl  # noqa: F401  loads the plugin
import zmq
from torch.multiprocessing.reductions import rebuild_cuda_tensor, rebuild_tensor
from verl.workers.rollout.vllm_rollout.bucketed_weight_transfer import BucketedWeightReceiver, BucketedWeightSender

from verl_relift.run import private
from verl_relift.testing.stranger import as_stranger, needs_stranger
from verl_relift.upstream.fixes import weight_socket
from verl_relift.upstream.fixes.weight_socket import WeightContext, decode, encode, in_private_folder


class Bomb:
    """Runs code in the process that unpickles it."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


BUFFER = (
    rebuild_cuda_tensor,
    (
        *(torch.Tensor, torch.Size([8]), (1,), 0, torch.storage.TypedStorage, torch.uint8, 1),
        *(b"\x00handle\xff", 8, 0, False, b"/torch_1", 7, b"event", True),
    ),
)


def bucket(**tensors) -> dict:
    return {"bucket_meta": {name: {"name": name, **tensor} for name, tensor in tensors.items()}, "is_last": True}


@pytest.mark.parametrize(
    "message",
    [
        BUFFER,
        {"name": "verl_weights_0f", "size": 1 << 20},
        bucket(
            w={"shape": torch.Size([2, 3]), "dtype": torch.bfloat16, "offset": 16, "handle": None},
            scalar={"shape": torch.Size([]), "dtype": torch.float8_e4m3fn, "offset": 0, "handle": None},
            large={"shape": torch.Size([8]), "dtype": torch.uint8, "offset": 0, "handle": BUFFER},
        ),
        {"bucket_meta": {}, "is_last": False},
    ],
)
def test_a_message_of_verls_arrives_as_it_was(message):
    arrived = decode(encode(message))
    assert arrived == message
    for tensor in arrived["bucket_meta"].values() if "bucket_meta" in message else ():
        assert isinstance(tensor["shape"], torch.Size) and isinstance(tensor["dtype"], torch.dtype)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b"{}",
        pickle.dumps({"name": "x", "size": 1}),
        json.dumps({"handle": [[8], [1], 0, "load", 0]}).encode(),
        json.dumps({"handle": "x"}).encode(),
        json.dumps({"tensors": [["w", [2], "Tensor", 0, None]], "is_last": True}).encode(),
        json.dumps({"tensors": [["w", ["x"], "float32", 0, None]], "is_last": True}).encode(),
        json.dumps({"tensors": [["w"]], "is_last": True}).encode(),
    ],
)
def test_any_other_message_is_refused(data):
    with pytest.raises(ValueError, match="not a message about weights"):
        decode(data)


def test_a_handle_of_another_function_is_not_sent():
    with pytest.raises(TypeError, match="rebuild_tensor"):
        encode((rebuild_tensor, ()))


def test_a_message_that_runs_code_runs_none(tmp_path):
    with pytest.raises(ValueError, match="not a message about weights"):
        decode(pickle.dumps(Bomb(tmp_path / "mark")))
    assert not (tmp_path / "mark").exists()


def test_verl_still_unpickles_what_comes_from_the_weights_socket(tmp_path):
    """The day this fails, `speak_json` can go."""
    source = inspect.getsource(BucketedWeightSender) + inspect.getsource(BucketedWeightReceiver)
    assert source.count("send_pyobj(") == 5 and source.count("recv_pyobj(") == 2
    context = zmq.Context()
    with context.socket(zmq.REQ) as sender, context.socket(zmq.REP) as receiver:
        sender.bind(f"ipc://{tmp_path}/plain.sock")
        receiver.connect(f"ipc://{tmp_path}/plain.sock")
        sender.send_pyobj(Bomb(tmp_path / "mark"))
        receiver.recv_pyobj()
    context.destroy(linger=0)
    assert (tmp_path / "mark").exists()


def test_verl_still_names_its_socket_after_the_job_alone():
    """The day this fails, the names of `fixes/weight_socket.py` can go."""
    from verl.workers.rollout.vllm_rollout import vllm_rollout

    source = inspect.getsource(vllm_rollout.ServerAdapter)
    assert "job_id = ray.get_runtime_context().get_job_id()" in source
    assert "rl-colocate-zmq-{job_id}-replica-{self.replica_rank}-rank-{local_rank}.sock" in source


@pytest.fixture
def job(monkeypatch, tmp_path):
    """A process of a Ray job, without Ray; its folder."""
    context = SimpleNamespace(get_job_id=lambda: "01000000")
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
    secret = os.urandom(16)
    monkeypatch.setattr(weight_socket, "derive", lambda purpose, size: secret)
    folder = Path("/tmp") / f"rl-colocate-zmq-{secret.hex()}"
    yield folder
    private.release(folder)
    shutil.rmtree(folder, ignore_errors=True)


def test_both_sides_find_the_socket_in_a_folder_of_the_owner(job):
    handle = in_private_folder("ipc:///tmp/rl-colocate-zmq-01000000-replica-3-rank-1.sock")
    assert handle == f"ipc://{job}/weights-replica-3-rank-1.sock"
    # As verl's receiver makes it, from the environment.
    assert handle == f"ipc:///tmp/rl-colocate-zmq-{weight_socket.private_job_id()}-replica-3-rank-1.sock"
    assert len(handle) < 107  # what the kernel allows of a socket's path
    assert job.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("handle", ["ipc:///run/another-name.sock", "ipc:///tmp/rl-colocate-zmq-02000000-x.sock"])
def test_a_name_of_another_form_is_refused(job, handle):
    with pytest.raises(ValueError, match="01000000"):
        in_private_folder(handle)


@pytest.mark.parametrize("kind", [zmq.REQ, zmq.REP])
def test_no_socket_is_made_where_others_can_open_it(tmp_path, kind):
    tmp_path.chmod(0o750)
    address = f"ipc://{tmp_path}/weights.sock"
    with WeightContext.instance().socket(kind) as socket, pytest.raises(private.NotPrivate, match="mode 750"):
        socket.bind(address) if kind == zmq.REQ else socket.connect(address)


@needs_stranger
def test_a_stranger_reaches_neither_side(job, tmp_path):
    """Even one who knows the name: not before the sender has bound it, and not after."""
    weight_socket.folder()
    path = job / "weights-replica-0-rank-0.sock"
    squat = f"socket.socket(socket.AF_UNIX).bind({str(path)!r})"
    assert "PermissionError" in as_stranger(squat)
    with WeightContext.instance().socket(zmq.REQ) as sender:
        sender.bind(f"ipc://{path}")
        path.chmod(0o777)
        assert "PermissionError" in as_stranger(squat.replace("bind(", "connect("))
        assert "PermissionError" in as_stranger(f"print(os.listdir({str(job)!r}))")
        # The kernel says who connects: the sender listens to nobody else, were the folder open.
        job.chmod(0o755)
        knock = f"""
            peer = zmq.Context().socket(zmq.REP)
            peer.connect("ipc://{path}")
            print("got", peer.poll(2000))
        """
        assert "got 0" in as_stranger(knock, "zmq")
        assert not sender.poll(0, zmq.POLLOUT)


@needs_stranger
def test_a_folder_that_a_stranger_made_first_is_refused(job):
    assert as_stranger(f"os.mkdir({str(job)!r}, 0o777)") == ""
    with pytest.raises(private.NotPrivate, match=f"{job}: belongs to user 65534"):
        weight_socket.folder()
