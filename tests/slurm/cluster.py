"""A Slurm cluster of two nodes on this machine. Its daemons, ports and mounts live in namespaces of their own."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import psutil

HERE = Path(__file__).parent
_NAMESPACES = ("--net", "--uts", "--ipc", "--mount", "--pid")


def missing() -> str | None:
    """Return why this machine can't run a cluster, or None."""
    if os.geteuid() != 0:
        return "needs root, to make namespaces and to run slurmd"
    lacking = [name for name in ("slurmctld", "slurmd", "munged", "ip", "unshare") if shutil.which(name) is None]
    return f"lacks {', '.join(lacking)}: run tests/slurm/install.sh" if lacking else None


class VirtualCluster:
    """Nodes `node1` and `node2` with two logical GPUs each. Leaving the context ends all of their processes."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._init: int | None = None

    def __enter__(self) -> "VirtualCluster":
        with open(self.folder / "daemons.log", "w") as log:
            self._unshare = subprocess.Popen(
                [
                    *("unshare", *_NAMESPACES, "--fork", "--kill-child", "--mount-proc"),
                    *(str(HERE / "cluster.sh"), str(self.folder)),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            deadline = time.monotonic() + 60.0
            while self._init is None or self._idle_nodes() < 2:
                if self._unshare.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"no Slurm cluster:\n{(self.folder / 'daemons.log').read_text()[-4000:]}")
                time.sleep(0.2)
                children = psutil.Process(self._unshare.pid).children()
                self._init = children[0].pid if children else None
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exception) -> None:
        # This is the first process of a process namespace. The kernel ends all others with it, also those of the nodes.
        if self._init is not None:
            os.kill(self._init, 9)
        else:
            self._unshare.kill()
        self._unshare.wait()

    def run(self, *command: str, **environment: str) -> str:
        """Run `command` on the controller's host and return what it prints.

        Raises:
            RuntimeError: its exit status is not 0.
        """
        result = subprocess.run(
            ["nsenter", f"--target={self._init}", *_NAMESPACES, *command],
            env={**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf"), **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )
        if result.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: status {result.returncode}\n{result.stdout}{result.stderr}")
        return result.stdout

    def job(self, number: str) -> dict[str, str]:
        """Return the controller's fields of a job: JobState, Restarts, TimeLimit, ..."""
        for _ in range(10):
            try:
                fields = self.run("scontrol", "--oneliner", "show", "job", number).split()
                break
            except RuntimeError as error:
                # munge waits for two seconds, which a busy machine may exceed
                last = error
                time.sleep(1.0)
        else:
            raise last
        return dict(field.split("=", 1) for field in fields if "=" in field)

    def _idle_nodes(self) -> int:
        try:
            return self.run("sinfo", "--noheader", "--Node", "--format=%t").split().count("idle")
        except RuntimeError:
            return 0
