"""Folders in /tmp that nobody else can open, prepare, or keep."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from verl_relift.run import private
from verl_relift.testing.stranger import USER, as_stranger, needs_stranger

HOLDER = """
import sys
from pathlib import Path
from verl_relift.run import private
private.hold(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path):
    yield tmp_path / "relift-test-1"
    private.release(tmp_path / "relift-test-1")


def test_a_folder_is_made_for_its_owner_alone_whatever_the_umask(folder):
    before = os.umask(0)
    try:
        private.hold(folder)
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert private.hold(folder) == folder  # once more is no error


def test_two_folders_have_different_names(tmp_path):
    made = [private.create("relift-test-", tmp_path) for _ in range(2)]
    assert made[0] != made[1] and all(one.parent == tmp_path for one in made)
    for one in made:
        private.release(one)


def test_a_link_is_refused(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(private.NotPrivate, match="not a folder"):
        private.hold(folder)


def test_a_file_is_refused(folder):
    folder.write_text("")
    with pytest.raises(private.NotPrivate, match="not a folder"):
        private.hold(folder)


@pytest.mark.parametrize("mode", [0o755, 0o710, 0o701])
def test_a_folder_that_others_can_open_is_refused(folder, mode):
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(private.NotPrivate, match=f"mode {mode:o}"):
        private.hold(folder)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to another user")
def test_a_folder_of_another_user_is_refused(folder):
    folder.mkdir(mode=0o700)
    os.chown(folder, USER, USER)
    with pytest.raises(private.NotPrivate, match=f"belongs to user {USER}"):
        private.hold(folder)
    assert private.remove_unheld("relift-test-", folder.parent) == []


@needs_stranger
def test_a_stranger_opens_nothing_in_it():
    folder = private.create("relift-test-")
    try:
        (folder / "token").write_text("secret")
        said = as_stranger(f"print(open('{folder}/token').read())")
        assert "PermissionError" in said and "secret" not in said
    finally:
        private.release(folder)
        private.remove_unheld(folder.name)
    assert not folder.exists()


def test_only_what_no_process_holds_is_removed(folder):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    (folder / "socket").write_text("")
    assert private.remove_unheld("relift-test-", folder.parent) == []
    holder.kill()  # as the kernel, short of memory
    holder.communicate()
    assert private.remove_unheld("another-", folder.parent) == []
    assert private.remove_unheld("relift-test-", folder.parent, older_than=3600.0) == []
    assert private.remove_unheld("relift-test-", folder.parent) == [folder]
    assert not folder.exists()


def test_what_a_link_points_to_is_not_removed(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "elsewhere")
    assert private.remove_unheld("relift-test-", tmp_path) == []
    assert Path(tmp_path / "elsewhere").exists()
