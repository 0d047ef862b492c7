"""A disk that is full is told in one line, and costs neither a whole checkpoint nor a line of metrics."""

import errno
import json
import os
import random
import subprocess
from pathlib import Path

import pytest

from verl_relift.run import checkpoints
from verl_relift.run import folder as runfolder
from verl_relift.run.disk import DiskFull, cannot_write, full

SIZE = 2 << 20
STEPS, SAVE_EVERY, CHECKPOINT_BYTES = 12, 3, 150_000


@pytest.fixture
def small(tmp_path):
    """A file system of 2 MiB."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(tmp_path)]
    if os.getuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("needs root, and the right to mount a file system")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


class Silent:
    """Stands in for verl's trackers."""

    def log(self, data, step, backend=None):
        pass

    def finish(self, exit_code=0):
        pass


def train(run: Path) -> None:
    """Write what a run writes, from its last checkpoint to step `STEPS`."""
    run.mkdir(exist_ok=True)
    runfolder.write_atomically(run / runfolder.CONFIG, "x: 1\n" * 500)
    latest = checkpoints.latest(run)
    done = checkpoints.step_of(latest) if latest else 0
    saved = [done]

    def commit(record: dict) -> None:
        if (run / f"global_step_{saved[-1]}.partial").exists():
            checkpoints.commit(run, saved[-1])
            checkpoints.prune(run, 2)

    metrics = runfolder.MetricsFile(Silent(), run / runfolder.METRICS, done, commit)
    try:
        for step in range(done + 1, STEPS + 1):
            if step % SAVE_EVERY == 0:
                folder = checkpoints.begin(run, step)
                for name in ("a", "b", "c"):
                    (folder / name).write_bytes(bytes([step]) * CHECKPOINT_BYTES)
                runfolder.write_atomically(folder / "state.json", json.dumps({"step": step}))
                saved.append(step)
            metrics.log({f"metric/{i}": step + i for i in range(200)}, step)
    finally:
        metrics.finish()


def lines(run: Path) -> list[dict]:
    path = run / runfolder.METRICS
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def steps(run: Path) -> list[int]:
    return [line["step"] for line in lines(run)]


def require_whole(run: Path) -> None:
    for folder in run.glob("global_step_*"):
        step = int(folder.name.removeprefix("global_step_"))
        assert all((folder / name).read_bytes() == bytes([step]) * CHECKPOINT_BYTES for name in "abc")
        assert json.loads((folder / "state.json").read_text()) == {"step": step}


@pytest.mark.parametrize("seed", range(20))
def test_at_a_random_place(small, seed):
    """The disk fills up somewhere; the run ends; there is room again; the same command comes to the end."""
    run, filler = small / "run", small / "filler"
    filler.write_bytes(bytes(random.Random(seed).randrange(SIZE // 3, SIZE - 4096)))
    try:
        train(run)
    except OSError as error:
        said = full(error, [run])
        assert said.startswith(f"No space left on device: the file system {small} has ") and said.count("\n") == 0
        checkpoints.discard_partial(run)
    else:
        assert steps(run) == list(range(1, STEPS + 1))
        return
    before = steps(run)
    assert before == list(range(1, len(before) + 1))
    latest = checkpoints.latest(run)
    assert (checkpoints.step_of(latest) if latest else 0) <= len(before)
    require_whole(run)
    known = {runfolder.CONFIG, runfolder.METRICS, runfolder.TRACKER}
    assert {path.name for path in run.iterdir() if not path.name.startswith("global_step_")} <= known
    filler.unlink()
    train(run)
    assert steps(run) == list(range(1, STEPS + 1))
    require_whole(run)
    assert checkpoints.latest(run).name == f"global_step_{STEPS}"


def test_the_random_places_are_in_every_part(small):
    """What the seeds stand for: some fail in a checkpoint, some before the first step, some not at all."""
    sizes = [random.Random(seed).randrange(SIZE // 3, SIZE - 4096) for seed in range(20)]
    assert min(sizes) < SIZE // 2 and max(sizes) > SIZE - CHECKPOINT_BYTES


def test_a_disk_that_is_full_is_the_cause_though_the_error_does_not_say_so(small):
    (small / "filler").write_bytes(bytes(1 << 20))
    assert full(RuntimeError("unexpected pos 64 vs 0"), [small]) is None
    with pytest.raises(OSError, match="No space"):
        (small / "more").write_bytes(bytes(SIZE))
    assert "No space left on device" in full(RuntimeError("unexpected pos 64 vs 0"), [Path("/dev/shm"), small / "no"])
    assert sorted(path.name for path in small.iterdir()) == ["filler", "more"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
        RuntimeError(
            'SafetensorError: I/O error: Os { code: 28, kind: StorageFull, message: "No space left on device" }'
        ),
        RuntimeError(
            "CheckpointException ranks:dict_keys([0])\nRuntimeError: Worker failure: [Errno 28] No space left on device"
        ),
    ],
)
def test_an_error_that_says_so_is_found_below_others(tmp_path, error):
    outer = RuntimeError("step 3 failed")
    outer.__cause__ = ValueError("in between")
    outer.__cause__.__context__ = error
    for one in (error, outer):
        said = full(one, [tmp_path])
        assert said.startswith(("No space left on device: the file system /", "Disk quota exceeded: the file system /"))
        assert str(tmp_path) in said and "make room there" in said


def test_the_place_that_the_error_names_is_told(tmp_path):
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/dev/shm/psm_1")
    assert "the file system /dev/shm has" in full(error, [tmp_path])


def test_other_errors_are_other_errors(tmp_path):
    assert full(RuntimeError("loss is nan"), [tmp_path]) is None
    assert full(PermissionError(errno.EACCES, "Permission denied", "x"), [tmp_path]) is None
    assert list(tmp_path.iterdir()) == []


def test_what_was_told_once_is_told_as_it_was(tmp_path):
    later = OSError("could not close")
    later.__context__ = DiskFull("step 3: No space left on device: there")
    assert full(later, [tmp_path]) == "step 3: No space left on device: there"


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    error = OSError(errno.EROFS, os.strerror(errno.EROFS), "/data/run")
    assert cannot_write(error, Path("/data/run")) == (
        "trainer.default_local_dir=/data/run: /data/run: Read-only file system; choose a folder that you can write to"
    )
