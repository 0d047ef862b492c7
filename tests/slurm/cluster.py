"""A Slurm cluster of two nodes on this machine, in namespaces of its own: no daemon, port or mount is seen outside."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import psutil

HERE = Path(__file__).parent
_NAMESPACES = ("--net", "--uts", "--ipc", "--mount", "--pid")


def missing() -> str | None:
    """Why there can be no cluster here, or None."""
    if os.geteuid() != 0:
        return "needs root, to make namespaces and to run slurmd"
    lacking = [name for name in ("slurmctld", "slurmd", "munged", "ip", "unshare") if shutil.which(name) is None]
    return f"lacks {', '.join(lacking)}: run tests/slurm/install.sh" if lacking else None


class VirtualCluster:
    """Nodes ``node1`` and ``node2``, one logical GPU each. A context manager: its end is the end of every process."""

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
        # The first process of a process namespace: the kernel ends all others with it, the nodes' too.
        if self._init is not None:
            os.kill(self._init, 9)
        else:
            self._unshare.kill()
        self._unshare.wait()

    def run(self, *command: str, **environment: str) -> str:
        """What ``command`` prints when it is run on the controller's host."""
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
        """What the controller knows of a job: JobState, Restarts, TimeLimit, ..."""
        for _ in range(10):
            try:
                fields = self.run("scontrol", "--oneliner", "show", "job", number).split()
                break
            except RuntimeError as error:
                # on a busy machine munge, which waits for two seconds, does not always get an answer
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
