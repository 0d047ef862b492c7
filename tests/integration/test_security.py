"""Another user of the machine attacks a run in training, for real: through its ports, its sockets, its folders."""

import pickle
import secrets
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from verl_relift.testing.launch import family, kill, listening, records, socket_files, start, wait_until
from verl_relift.testing.stranger import as_stranger, needs_stranger

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="tests/gpu covers machines with a GPU")

GSM8K = Path(__file__).parents[1] / "data" / "gsm8k"


class Bomb:
    """Makes a folder in the process that unpickles it."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        import os

        return os.mkdir, (str(self.mark),)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run between two of its many steps; (process, its folder)."""
    prepared = tmp_path_factory.mktemp("prepared")
    for arguments in (
        ["data_preprocess.gsm8k", "--input", str(GSM8K), "--output", str(prepared / "data"), "--template", "think"],
        ["verl_relift.quickstart.random_model", "--output", str(prepared / "model")],
    ):
        subprocess.run([sys.executable, "-m", *arguments], check=True, capture_output=True)
    folder = prepared / "run"
    process = start(
        "smoke",
        folder,
        f"data.train_files={prepared}/data/train.parquet",
        f"data.val_files={prepared}/data/test.parquet",
        f"actor_rollout_ref.model.path={prepared}/model",
        *("trainer.total_training_steps=20000", "trainer.save_freq=20000"),
    )
    try:
        wait_until(lambda: len(records(folder)) >= 1, process, folder)
        yield process, folder
    finally:
        kill(process)


def folders(process: subprocess.Popen) -> set[Path]:
    """The run's folders in /tmp: of Ray, of the weights' sockets, of temporary files and torch's store."""
    held = {Path(*path.parts[:3]) for path in socket_files(process) if str(path).startswith("/tmp/r")}
    return held | {Path(process_environment(process)["TMPDIR"])}


def process_environment(process: subprocess.Popen) -> dict[str, str]:
    """The environment of one of the run's training processes."""
    return next(one.environ() for one in family(process) if "WorkerDict" in " ".join(one.cmdline()))


def test_torchs_stores_are_files_in_a_folder_of_the_owner(run):
    environment = process_environment(run[0])
    folder = Path(environment["TMPDIR"])
    stores = {int(file.name.removeprefix("store-")) for file in folder.glob("store-*")}
    assert folder.stat().st_mode & 0o777 == 0o700
    assert len(stores) == 2 and int(environment["MASTER_PORT"]) in stores  # training's, and vLLM's
    assert not stores & listening(run[0]).keys()


def test_nothing_listens_off_loopback(run):
    ports = listening(run[0])
    assert len(ports) > 5  # Ray's, TransferQueue's, gloo's
    assert {port: where for port, where in ports.items() if not where[0].startswith("127.")} == {}


def test_every_socket_in_the_file_system_is_in_a_folder_of_the_owner(run):
    paths = socket_files(run[0])
    assert any("rl-colocate-zmq-" in str(path) for path in paths) and any("raylet" in str(path) for path in paths)
    for path in paths:
        assert any(parent.exists() and parent.stat().st_mode & 0o777 == 0o700 for parent in path.parents), path


def test_no_secret_is_an_argument(run):
    gcs = next(one for one in family(run[0]) if "gcs_server" in one.name())
    file = Path(gcs.environ()["RAY_AUTH_TOKEN_PATH"])
    assert file.stat().st_mode & 0o777 == 0o600
    token = file.read_text()
    assert len(token) == 64
    for one in family(run[0]):
        assert token not in " ".join(one.cmdline())
    assert token not in run[1].with_suffix(".log").read_text()
    assert token not in (run[1] / "logs/train.log").read_text()


@needs_stranger
def test_a_stranger_opens_no_folder_of_the_run(run):
    held = folders(run[0])
    assert len(held) == 3
    for folder in held:
        assert "PermissionError" in as_stranger(f"print(os.listdir({str(folder)!r}))")


@needs_stranger
def test_a_strangers_message_runs_no_code_in_transfer_queue(run):
    """The frames of TransferQueue's own messages with a pickle, to every port of the run."""
    mark = Path("/tmp") / f"mark-{secrets.token_hex(8)}"
    frames = [b"\xc1\xfe\xed", pickle.dumps(Bomb(mark))]
    sent = as_stranger(
        f"""
        context = zmq.Context()
        for port in {sorted(listening(run[0]))}:
            for identity in (b"TQ_STORAGE_1", b"TransferQueueClient_1"):
                peer = context.socket(zmq.DEALER)
                peer.identity = identity
                peer.connect(f"tcp://127.0.0.1:{{port}}")
                peer.send_multipart({frames})
        # TransferQueue would have answered at once.
        print("sent", flush=True)
        import time
        time.sleep(5)
        os._exit(0)
        """,
        *("zmq", "time"),
    )
    assert sent.split() == ["sent"]
    assert not mark.exists()


@needs_stranger
def test_ray_lets_nobody_in_without_the_token(run):
    """Not into its key-value store, where the secret of the run is, and not through the agents that start processes."""
    ports = listening(run[0])
    gcs = next(port for port, (_, name) in ports.items() if "gcs_server" in name)
    for token in ("", "0" * 64):
        said = as_stranger(
            f"""
            if {token!r}:
                os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN={token!r})
            client = ray._raylet.GcsClient(address="127.0.0.1:{gcs}")
            print("got", client.internal_kv_get(b"secret", b"verl_relift", timeout=10))
            """,
            *("ray",),
        )
        assert "got" not in said and "Error" in said, said
    paths = ("/api/job_agent/jobs/", "/get_or_create_runtime_env", "/v1/completions", "/v1/load_lora_adapter")
    requests = [(port, f"POST {path} HTTP/1.1") for port in ports for path in paths]
    with ThreadPoolExecutor(len(requests)) as threads:  # who speaks no HTTP says nothing
        answers = dict(zip(requests, threads.map(answer, *zip(*requests, strict=True)), strict=True))
    # 0: no HTTP; Ray's metrics take no POST.
    assert set(answers.values()) <= {0, 401, 403, 404, 405}, answers
    assert 401 in answers.values()  # Ray's agents, which would have started a process


def answer(port: int, request: str) -> int:
    """The status that a server gives to a request without a token, 0 if it speaks no HTTP."""
    body = b'{"entrypoint": "true"}'
    head = f"{request}\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.settimeout(1.0)
        try:
            connection.sendall(head.encode() + body)
            line = connection.recv(64).split(b"\r\n")[0].split()
        except OSError:
            return 0
    return int(line[1]) if len(line) > 1 and line[0].startswith(b"HTTP/") else 0


def test_nothing_of_the_run_stays_in_tmp(run):
    process, _ = run
    mine = folders(process)
    assert len(mine) == 3
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=300)
    time.sleep(1.0)
    assert not [folder for folder in mine if folder.exists()]
