"""Ray on the nodes of a Slurm job: the commands that train.sbatch runs.

ray_node.py address --peer HOST --job ID     print the address of the job's Ray, IP:PORT
ray_node.py run --address IP:PORT --gpus N   run Ray on this node until SIGTERM
ray_node.py wait --nodes N --gpus N          return when every node has joined Ray at $RAY_ADDRESS
"""

import argparse
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# Below Linux's ephemeral ports, which any program may be given at any moment, and above Ray's own ranges.
FIRST_PORT, PORTS = 20000, 12000
HEAD_SECONDS = 120.0
CLUSTER_SECONDS = 300.0


def choose_address(peer: str, job: int) -> str:
    """Choose the address of the job's Ray.

    Args:
        peer: another node of the job; the address is the one by which this node reaches it.
        job: the job's number, which decides the first port to try, so that jobs on one node get different ports.

    Returns:
        `IP:PORT` with a free port.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((peer, 9))  # sends nothing: asks the kernel for the route
        ip = probe.getsockname()[0]
    for attempt in range(PORTS):
        port = FIRST_PORT + (job * 7 + attempt) % PORTS
        with socket.socket() as listener:
            try:
                listener.bind((ip, port))
            except OSError:
                continue
            return f"{ip}:{port}"
    raise SystemExit(f"ray_node.py: no free port from {FIRST_PORT} to {FIRST_PORT + PORTS - 1} on {ip}")


def run(address: str, gpus: int) -> int:
    """Run Ray on this node until it ends or SIGTERM arrives; the job's first node runs the head.

    Returns:
        0 after SIGTERM, when the node's folder and shared memory are removed; otherwise Ray's own status, or 1.
    """
    from verl_relift.run.environment import prepare_environment

    prepare_environment()
    # All nodes stop together, so there is no node that Ray could move anything to.
    os.environ.setdefault("RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S", "0")
    start = time.time()
    ip, port = address.split(":")
    folder = make_folder()
    # Temporary files of the processes that Ray starts.
    (folder / "tmp").mkdir()
    os.environ["TMPDIR"] = str(folder / "tmp")
    # Ray opens its own folder to all users.
    command = ["ray", "start", "--block", f"--num-gpus={gpus}", f"--temp-dir={folder}/ray", "--disable-usage-stats"]
    if os.environ["SLURM_PROCID"] == "0":
        command += ["--head", f"--node-ip-address={ip}", f"--port={port}", "--include-dashboard=false"]
    else:
        _wait_for_port(ip, int(port))
        command += [f"--address={address}"]
    log = folder / "start.log"
    with open(log, "x") as output:
        process = subprocess.Popen(
            command + shlex.split(os.environ.get("RAY_ARGUMENTS", "")), stdout=output, stderr=subprocess.STDOUT
        )
    stopped = False

    def stop(signum, frame):
        nonlocal stopped
        stopped = True
        process.terminate()

    signal.signal(signal.SIGTERM, stop)
    # This import takes seconds (verl), in which Ray starts.
    from verl_relift.run import leftovers, private
    from verl_relift.run.cluster import SOCKETS

    status = process.wait()
    leftovers.remove_segments(since=start)
    private.remove_unheld(SOCKETS)
    if stopped:
        shutil.rmtree(folder, ignore_errors=True)
        return 0
    print(log.read_text()[-4000:], file=sys.stderr)
    print(f"ray_node.py: Ray on {socket.gethostname()} ended with status {status}; logs in {folder}", file=sys.stderr)
    return status or 1


def make_folder() -> Path:
    """Make a folder of this job and node that only this user can open.

    The name is short because the path of a socket has at most 107 characters. Its end is random: another user knows the
    number of the job, and could have made a folder of that name.
    """
    return Path(tempfile.mkdtemp(prefix=f"ray-{os.environ['SLURM_JOB_ID']}-{os.environ['SLURM_NODEID']}-", dir="/tmp"))


def _wait_for_port(ip: str, port: int) -> None:
    deadline = time.monotonic() + HEAD_SECONDS
    while True:
        try:
            socket.create_connection((ip, port), timeout=5.0).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise SystemExit(
                    f"ray_node.py: {socket.gethostname()} cannot reach Ray's head at {ip}:{port} ({error}); do the "
                    "nodes' firewalls let them talk to each other?"
                ) from error
            time.sleep(0.2)


def wait(nodes: int, gpus: int) -> None:
    """Wait until `nodes` nodes with `gpus` GPUs each have joined the Ray at $RAY_ADDRESS.

    Raises:
        SystemExit: they have not after `CLUSTER_SECONDS`; the message lists the nodes that joined.
    """
    import ray

    ip, port = os.environ["RAY_ADDRESS"].split(":")
    _wait_for_port(ip, int(port))
    deadline = time.monotonic() + CLUSTER_SECONDS
    while not ray.is_initialized():
        try:
            ray.init(log_to_driver=False, logging_level="ERROR")
        except ConnectionError:
            # The head listens before its own node has joined.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
    while True:
        alive = [node for node in ray.nodes() if node["Alive"]]
        ready = [node for node in alive if node["Resources"].get("GPU", 0) >= gpus]
        if len(ready) >= nodes:
            return
        if time.monotonic() > deadline:
            found = ", ".join(f"{n['NodeManagerHostname']}: {n['Resources'].get('GPU', 0):g} GPUs" for n in alive)
            raise SystemExit(f"ray_node.py: {len(ready)} of {nodes} nodes with {gpus} GPUs joined Ray ({found})")
        time.sleep(0.2)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    sub = commands.add_parser("address")
    sub.add_argument("--peer", required=True)
    sub.add_argument("--job", type=int, required=True)
    sub = commands.add_parser("run")
    sub.add_argument("--address", required=True)
    sub.add_argument("--gpus", type=int, required=True)
    sub = commands.add_parser("wait")
    sub.add_argument("--nodes", type=int, required=True)
    sub.add_argument("--gpus", type=int, required=True)
    arguments = parser.parse_args()
    if arguments.command == "address":
        print(choose_address(arguments.peer, arguments.job))
    elif arguments.command == "run":
        sys.exit(run(arguments.address, arguments.gpus))
    else:
        wait(arguments.nodes, arguments.gpus)


if __name__ == "__main__":
    main()
