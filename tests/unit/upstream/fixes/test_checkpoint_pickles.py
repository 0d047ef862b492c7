"""Loading a checkpoint calls nothing that the checkpoint chooses."""

import inspect
import io
import os
import pickle

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
import verl  # noqa: F401  loads the plugin
from torch.distributed.checkpoint import default_planner, filesystem

from verl_relift.upstream.registry import ORIGINALS


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self._path = str(path)

    def __reduce__(self):
        return os.mknod, (self._path,)


@pytest.fixture
def checkpoint(tmp_path):
    state = {"weight": torch.arange(6.0).reshape(2, 3), "numbers": {"step": 3, "betas": (0.9, 0.95)}}
    state["generators"] = {"words": np.arange(3, dtype="u4"), "python": (3, (1, 2), None)}
    dcp.save(state, checkpoint_id=tmp_path / "checkpoint", no_dist=True)
    return tmp_path / "checkpoint", state


def load(folder) -> dict:
    state = {"weight": torch.zeros(2, 3), "numbers": {"step": 0, "betas": (0.0, 0.0)}}
    state["generators"] = {"words": None, "python": (0, (0, 0), None)}
    dcp.load(state, checkpoint_id=folder, no_dist=True)
    return state


def test_torch_still_unpickles_metadata_without_limits():
    """The day this fails, `limit_metadata` can go."""
    assert ORIGINALS["torch.distributed.checkpoint.filesystem:pickle"] is pickle
    assert "pickle.load(metadata_file)" in inspect.getsource(filesystem.FileSystemReader.read_metadata)
    # Nothing else of the module's uses what was replaced.
    assert set(vars(filesystem.pickle)) == {"load", "dump"}
    source = inspect.getsource(filesystem)
    assert source.count("pickle.") == source.count("pickle.load(") + source.count("pickle.dump(") == 2


def test_torch_still_loads_objects_without_limits():
    """The day this fails, `limit_objects` can go."""
    original = ORIGINALS["torch.distributed.checkpoint.default_planner:DefaultLoadPlanner.load_bytes"]
    assert "weights_only=False" in inspect.getsource(original)


def test_a_checkpoint_loads_as_before(checkpoint):
    folder, state = checkpoint
    loaded = load(folder)
    assert torch.equal(loaded["weight"], state["weight"])
    assert loaded["numbers"] == state["numbers"] and loaded["generators"]["python"] == (3, (1, 2), None)
    assert loaded["generators"]["words"].tolist() == [0, 1, 2]


def test_hostile_metadata_runs_nothing(checkpoint, tmp_path):
    folder, _ = checkpoint
    metadata = filesystem.FileSystemReader(folder).read_metadata()
    metadata.planner_data = Hostile(tmp_path / "ran")
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    with pytest.raises(pickle.UnpicklingError, match=r"names posix\.mknod, which no checkpoint of Megatron does"):
        filesystem.FileSystemReader(folder).read_metadata()
    with pytest.raises(dcp.api.CheckpointException):
        load(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["builtins.eval", "torch.load", "torch.distributed.checkpoint.filesystem.os"])
def test_functions_of_known_modules_are_not_reached(name):
    module, _, attribute = name.rpartition(".")
    with pytest.raises(pickle.UnpicklingError, match="don't load it"):
        filesystem.pickle.load(io.BytesIO(f"c{module}\n{attribute}\n.".encode()))


def test_a_hostile_object_runs_nothing(checkpoint, tmp_path):
    planner = default_planner.DefaultLoadPlanner()
    planner.flatten_state_dict, planner.state_dict = False, {}
    value = io.BytesIO()
    torch.save({"x": Hostile(tmp_path / "ran")}, value)
    value.seek(0)
    with pytest.raises(pickle.UnpicklingError):
        planner.load_bytes(None, value)
    assert not (tmp_path / "ran").exists()
