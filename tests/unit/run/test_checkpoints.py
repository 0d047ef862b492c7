"""A checkpoint folder is complete or absent, at whatever moment a run is killed."""

import pytest

from verl_relift.run import checkpoints
from verl_relift.run.checkpoints import CheckpointError


def save(run, step: int) -> None:
    folder = checkpoints.begin(run, step)
    (folder / "weights").write_text(str(step))
    checkpoints.commit(run, step)


def names(run) -> list[str]:
    return sorted(path.name for path in run.glob("global_step_*"))


def test_a_committed_checkpoint_is_the_latest(tmp_path):
    assert checkpoints.latest(tmp_path) is None
    save(tmp_path, 3)
    save(tmp_path, 6)
    assert checkpoints.latest(tmp_path) == tmp_path / "global_step_6"
    assert names(tmp_path) == ["global_step_3", "global_step_6"]


def test_killed_while_writing(tmp_path):
    save(tmp_path, 3)
    checkpoints.begin(tmp_path, 6)
    assert checkpoints.latest(tmp_path) == tmp_path / "global_step_3"
    save(tmp_path, 6)  # the resumed run reaches step 6 again
    assert names(tmp_path) == ["global_step_3", "global_step_6"]


def test_killed_between_the_rename_and_the_tracker(tmp_path):
    save(tmp_path, 3)
    checkpoints.begin(tmp_path, 6).rename(tmp_path / "global_step_6")
    assert checkpoints.latest(tmp_path) == tmp_path / "global_step_3"
    save(tmp_path, 6)
    assert (checkpoints.latest(tmp_path) / "weights").read_text() == "6"


def test_old_checkpoints_are_removed_except_the_one_in_use(tmp_path):
    for step in (2, 4, 10):
        save(tmp_path, step)
    checkpoints.prune(tmp_path, None)
    assert len(names(tmp_path)) == 3
    checkpoints.prune(tmp_path, 2)
    assert names(tmp_path) == ["global_step_10", "global_step_4"]
    (tmp_path / checkpoints.TRACKER).write_text("4")  # the user went back
    checkpoints.prune(tmp_path, 1)
    assert names(tmp_path) == ["global_step_10", "global_step_4"]


@pytest.mark.parametrize("text", ["", "12", "../elsewhere"])
def test_a_tracker_without_its_checkpoint_is_an_error(tmp_path, text):
    (tmp_path / checkpoints.TRACKER).write_text(text)
    with pytest.raises(CheckpointError, match="remove it to start from step 0"):
        checkpoints.latest(tmp_path)


def test_the_step_is_read_from_the_name(tmp_path):
    save(tmp_path, 12)
    assert checkpoints.step_of(tmp_path / "global_step_12") == 12
    for wrong in ("global_step_13", "global_step_x", ""):
        with pytest.raises(CheckpointError, match="give an existing"):
            checkpoints.step_of(tmp_path / wrong)
