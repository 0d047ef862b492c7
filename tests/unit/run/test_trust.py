"""A checkpoint that somebody else could have written is not loaded."""

import os

import pytest

from verl_relift.run.trust import Untrusted, require_closed, require_own

root = pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "run" / "global_step_3"
    (folder / "actor" / "dist_ckpt").mkdir(parents=True)
    (folder / "actor" / "dist_ckpt" / ".metadata").write_bytes(b"")
    for path in (tmp_path / "run", folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


def test_a_checkpoint_of_ones_own_is_loaded(checkpoint):
    require_own(checkpoint)


@pytest.mark.parametrize("name", ["..", ".", "actor/dist_ckpt", "actor/dist_ckpt/.metadata"])
def test_what_everybody_may_write_is_refused(checkpoint, name):
    path = checkpoint / name
    path.chmod(path.stat().st_mode | 0o002)
    with pytest.raises(Untrusted, match=r"can be written by everybody.*chmod -R go-w .*trust_others=true"):
        require_own(checkpoint)


@root
@pytest.mark.parametrize("name", ["..", ".", "actor/dist_ckpt/.metadata"])
def test_what_belongs_to_somebody_else_is_refused(checkpoint, name):
    os.chown(checkpoint / name, 12345, -1)
    with pytest.raises(Untrusted, match=r"belongs to user 12345.*cp -r.*trust_others=true"):
        require_own(checkpoint)


@root
def test_a_group_with_other_members_is_refused_and_ones_own_is_not(checkpoint):
    file = checkpoint / "actor" / "dist_ckpt" / ".metadata"
    file.chmod(0o664)
    require_own(checkpoint)  # the group root
    os.chown(file, -1, 12345)
    with pytest.raises(Untrusted, match="can be written by the group 12345"):
        require_own(checkpoint)


def test_what_a_link_leads_to_counts(checkpoint, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "data").write_bytes(b"")
    (checkpoint / "link").symlink_to(tmp_path / "elsewhere")
    (checkpoint / "again").symlink_to(checkpoint)  # a circle
    (tmp_path / "elsewhere" / "data").chmod(0o644)
    (tmp_path / "elsewhere").chmod(0o755)
    require_own(checkpoint)
    (tmp_path / "elsewhere" / "data").chmod(0o666)
    with pytest.raises(Untrusted, match=r"elsewhere/data|link/data"):
        require_own(checkpoint)


def test_a_shared_folder_with_the_sticky_bit_holds_a_run_of_ones_own(checkpoint):
    checkpoint.parent.chmod(0o1777)
    require_own(checkpoint)


def test_a_folder_that_no_run_could_resume_from_is_told_at_the_start(tmp_path):
    file = tmp_path / "run.lock"
    file.touch(0o600)
    require_closed(tmp_path, file)
    for path, mode in ((file, 0o666), (tmp_path, 0o777)):
        before = path.stat().st_mode
        path.chmod(mode)
        with pytest.raises(Untrusted, match=r"can be written by everybody, so a resumed run would .*umask 022"):
            require_closed(tmp_path, file)
        path.chmod(before)
