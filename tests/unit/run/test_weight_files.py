"""Files of weights that are not whole are found by their header and size."""

import re

import pytest
import torch
from safetensors.torch import save_file

from verl_relift.run.weight_files import fault

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:1234\nsize 1219808\n"


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(100), "b": torch.ones(7, 3)}, path, metadata={"format": "pt"})
    return path


def test_a_whole_file_has_no_fault(weights, tmp_path):
    assert fault(weights) is None
    save_file({}, tmp_path / "none.safetensors")
    assert fault(tmp_path / "none.safetensors") is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda whole: whole[:-1], r"has 6\d\d of 6\d\d bytes; download it again"),
        (lambda whole: whole[: len(whole) // 2], r"has 3\d\d of 6\d\d bytes; download it again"),
        (lambda whole: whole[:50], "is no safetensors file, or a part of one; download it again"),
        (lambda whole: b"", "is no safetensors file, or a part of one; download it again"),
        (lambda whole: POINTER, "is a pointer of Git LFS, not the weights; run git lfs pull"),
        (lambda whole: b"<!DOCTYPE html><html><body>404</body></html>", "is no safetensors file, or a part of one"),
        (lambda whole: whole[:8] + b"x" * (len(whole) - 8), "is no safetensors file; download it again"),
        (lambda whole: (2).to_bytes(8, "little") + b"[]", "is no safetensors file; download it again"),
    ],
)
def test_what_is_not_whole_is_said(weights, change, said):
    weights.write_bytes(change(weights.read_bytes()))
    assert re.match(said, fault(weights))
