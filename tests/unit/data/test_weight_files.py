"""Files of weights that are not complete are found before they are loaded."""

import re

import pytest
import torch
from safetensors.torch import save_file

from verl_relift.data.weight_files import fault

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:1234\nsize 1219808\n"


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(100), "b": torch.ones(7, 3)}, path, metadata={"format": "pt"})
    return path


def test_a_complete_file_has_no_fault(weights, tmp_path):
    assert fault(weights) is None
    save_file({}, tmp_path / "none.safetensors")
    assert fault(tmp_path / "none.safetensors") is None


@pytest.mark.parametrize(
    "change",
    [
        lambda whole: whole[:-1],
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:50],
        lambda whole: b"",
        lambda whole: b"<!DOCTYPE html><html><body>404</body></html>",
        lambda whole: whole[:8] + b"x" * (len(whole) - 8),
        lambda whole: (2).to_bytes(8, "little") + b"[]",
    ],
)
def test_what_is_not_complete_is_said(weights, change):
    weights.write_bytes(change(weights.read_bytes()))
    assert re.fullmatch(r"is not a complete safetensors file \(.+\); download it again", fault(weights))


def test_a_pointer_of_git_lfs_is_said(weights):
    weights.write_bytes(POINTER)
    assert fault(weights) == "is a pointer of Git LFS, not the weights; run git lfs pull"
