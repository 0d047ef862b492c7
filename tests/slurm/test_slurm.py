"""examples/slurm/train.sbatch on a real Slurm: two nodes, and a time limit that comes before the last step."""

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.slurm.cluster import VirtualCluster, missing

pytestmark = [pytest.mark.slow, pytest.mark.skipif(missing() is not None, reason=missing() or "")]

ROOT = Path(__file__).parents[2]
# more than an idle machine makes before Slurm, which checks twice a minute, sees the time limit
STEPS = 60
SECONDS_TO_FIRST_STEP = 180
PATIENCE = 900.0


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A small version of the quickstart's data and base model."""
    folder = tmp_path_factory.mktemp("prepared")
    sizes = ["--train-size", "512", "--eval-size", "8", "--pretrain-size", "4096"]
    for arguments in (
        ["data_preprocess.arithmetic", "--output", str(folder), *sizes],
        ["verl_relift.quickstart.base_model", "--data", str(folder), "--output", str(folder / "base"), "--steps", "50"],
    ):
        subprocess.run([sys.executable, "-m", *arguments], check=True, capture_output=True, cwd=ROOT)
    return folder


@pytest.fixture
def cluster(tmp_path_factory):
    # munged's socket must have a short path.
    with VirtualCluster(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


def submit(cluster: VirtualCluster, prepared: Path, run: Path, *overrides: str, **variables: str) -> str:
    """Submit the script with the variables of its edit block set from outside, and return the job's number."""
    environment = {
        "RUN_SCRIPT": "recipe/relift/run.sh",
        "MODEL": "qwen2.5-math-1.5b",
        "VENV": str(Path(sys.prefix)),
        "MODEL_PATH": str(prepared / "base"),
        "TRAIN_FILES": str(prepared / "train.parquet"),
        "VAL_FILES": str(prepared / "test.parquet"),
        "OUTPUT": str(run),
        "TRAIN_BATCH_SIZE": "8",
        "MINI_BATCH_SIZE": "8",
        "ROLLOUTS": "4",
        "SFT_BATCH_SIZE": "8",
        "MAX_PROMPT_LENGTH": "32",
        "MAX_RESPONSE_LENGTH": "64",
        "STEPS": str(STEPS),
        # verl's workers request more CPUs of Ray than this machine has
        "RAY_ARGUMENTS": "--num-cpus=16 --object-store-memory=500000000",
        **variables,
    }
    arguments = (
        *(f"--chdir={ROOT}", f"--output={run}.log", "--gpus-per-node=1", "--cpus-per-task=1"),
        *("--time=60", "--signal=B:USR1@180", "examples/slurm/train.sbatch", "--config-name", "quickstart"),
        *("trainer.resume_mode=auto", "ray_kwargs.ray_init.num_cpus=null", "ray_kwargs.ray_init.num_gpus=null"),
        *overrides,
    )
    cluster.run("sbatch", "--test-only", *arguments, **environment)
    assert cluster.run("squeue", "--noheader") == ""
    return cluster.run("sbatch", "--parsable", *arguments, **environment).strip()


def steps_of(run: Path) -> list[int]:
    path = run / "metrics.jsonl"
    return [json.loads(line)["step"] for line in path.read_text().splitlines()] if path.exists() else []


def wait_until(condition, cluster: VirtualCluster, job: str, run: Path) -> None:
    """Poll. If the job fails, or PATIENCE runs out, fail the test with the end of the job's log."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        state = cluster.job(job)["JobState"]
        if state in ("FAILED", "TIMEOUT", "NODE_FAIL", "CANCELLED") or time.monotonic() > deadline:
            log = run.with_suffix(".log")
            pytest.fail(f"job {job}: {state}\n{log.read_text(errors='replace')[-6000:] if log.exists() else 'no log'}")
        time.sleep(0.5)


@pytest.mark.timeout(3000)
def test_a_run_on_two_nodes_is_requeued_by_its_time_limit_and_finishes(cluster, prepared, tmp_path):
    run = tmp_path / "run"
    before = set(Path("/tmp").glob("ray-*"))  # of jobs that were killed
    start = time.monotonic()
    job = submit(cluster, prepared, run)
    wait_until(lambda: steps_of(run), cluster, job, run)
    seconds = time.monotonic() - start
    print(f"sbatch to first step: {seconds:.0f} s, load {os.getloadavg()[0]:.1f}")
    attack(cluster, run, tmp_path / "mark")

    # The limit comes while it trains, whatever this machine's speed: two to three minutes from now.
    used = int(time.time() - start_time(cluster, job))
    cluster.run("scontrol", "update", f"JobId={job}", f"TimeLimit={used // 60 + 3}")
    wait_until(lambda: cluster.job(job)["Restarts"] == "1", cluster, job, run)
    stopped = steps_of(run)[-1]
    assert stopped < STEPS
    assert (run / "latest_checkpointed_iteration.txt").read_text() == str(stopped)
    cluster.run("scontrol", "update", f"JobId={job}", "TimeLimit=60")
    wait_until(lambda: cluster.job(job)["JobState"] == "COMPLETED", cluster, job, run)

    assert steps_of(run) == list(range(1, STEPS + 1))
    # several processes write progress bars to it at the same time
    log = run.with_suffix(".log").read_text(errors="replace")
    assert f"stopped after step {stopped}" in log
    assert (run / f"global_step_{STEPS}" / "relift" / "state.json").exists()
    assert re.search(r"2 nodes \(node1 node2\) with 1 GPUs each, Ray at 10\.77\.0\.11:2\d{4}, restart 1", log)
    assert set(Path("/tmp").glob("ray-*")) <= before
    if os.getloadavg()[0] < 2 * psutil.cpu_count():
        assert seconds <= SECONDS_TO_FIRST_STEP


class Bomb:
    """Makes a folder in the process that unpickles it."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


ATTACK = """
import json, os, sys, time
import ray, zmq
ports, head, frames = json.loads(sys.argv[1])
context = zmq.Context()
for address, port in ports:
    for identity in (b"TQ_STORAGE_1", b"TransferQueueClient_1"):
        peer = context.socket(zmq.DEALER)
        peer.identity = identity
        peer.connect(f"tcp://{address}:{port}")
        peer.send_multipart([bytes.fromhex(frame) for frame in frames])
try:
    client = ray._raylet.GcsClient(address=head)
    print("got", client.internal_kv_get(b"secret", b"verl_relift", timeout=10))
except Exception as error:
    print("refused", type(error).__name__)
time.sleep(5)
sys.stdout.flush()
os._exit(0)  # closing sockets on ports that do not speak ZeroMQ can take forever
"""


def listening(address: str) -> list[tuple[str, int]]:
    """Return the ports on which the node of that address listens for other hosts."""
    option = f"--node_ip_address={address}"
    raylet = next(p for p in psutil.process_iter(["cmdline"]) if option in (p.info["cmdline"] or []))
    ports = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{raylet.pid}/net/{table}").read_text().splitlines()[1:]:
            host, port = line.split()[1].split(":")
            if line.split()[3] == "0A" and not host.endswith("0100007F"):
                ports.add(int(port, 16))
    return [(address, port) for port in sorted(ports)]


def attack(cluster: VirtualCluster, run: Path, mark: Path) -> None:
    """From another host, without the token: ask Ray for the secret, and send TransferQueue's messages with a pickle."""
    head = re.findall(r"Ray at (10\.77\.0\.11:\d+)", run.with_suffix(".log").read_text(errors="replace"))[-1]
    ports = [*listening("10.77.0.11"), *listening("10.77.0.12")]
    assert len(ports) > 10
    frames = [frame.hex() for frame in (b"\xc1\xfe\xed", pickle.dumps(Bomb(mark)))]
    said = cluster.run(sys.executable, "-c", ATTACK, json.dumps([ports, head, frames]))
    assert "refused" in said and "got" not in said, said
    assert not mark.exists()


def trainings(run: Path) -> list[psutil.Process]:
    """Return the training's process, if it runs, as this machine sees it."""
    own = f"trainer.default_local_dir={run}"
    found = [p for p in psutil.process_iter(["cmdline"]) if own in (p.info["cmdline"] or [])]
    return found[:1]  # the one with the lowest id; forked children have the same command line


def start_time(cluster: VirtualCluster, job: str) -> float:
    """Return when the job's present run began, in Unix seconds."""
    return time.mktime(time.strptime(cluster.job(job)["StartTime"], "%Y-%m-%dT%H:%M:%S"))


@pytest.mark.timeout(1200)
def test_a_step_that_outlasts_the_time_limit_costs_the_step_not_the_job(cluster, prepared, tmp_path):
    """The training is suspended, so it does not react to the signal."""
    run = tmp_path / "run"
    job = submit(cluster, prepared, run)
    wait_until(lambda: trainings(run), cluster, job, run)
    [training] = trainings(run)
    training.suspend()
    used = int(time.time() - start_time(cluster, job))
    cluster.run("scontrol", "update", f"JobId={job}", f"TimeLimit={used // 60 + 2}")
    wait_until(lambda: cluster.job(job)["Restarts"] == "1", cluster, job, run)
    log = run.with_suffix(".log").read_text(errors="replace")
    assert "the step outlasted --signal: requeued" in log
    assert "the training ended with status" not in log


@pytest.mark.timeout(600)
def test_a_missing_run_script_ends_the_job_with_one_line(cluster, prepared, tmp_path):
    run = tmp_path / "run"
    job = submit(cluster, prepared, run, RUN_SCRIPT="recipe/none.sh")
    deadline = time.monotonic() + 120
    while cluster.job(job)["JobState"] != "FAILED":
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert "RUN_SCRIPT=recipe/none.sh: no such file" in run.with_suffix(".log").read_text()
    assert cluster.job(job)["ExitCode"] == "2:0"


def test_nothing_of_the_cluster_outlives_it(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slurm")
    with VirtualCluster(folder) as cluster:
        family = psutil.Process(cluster._unshare.pid).children(recursive=True)
        assert len(family) > 5
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []
    shutil.rmtree(folder)  # nothing is mounted there
