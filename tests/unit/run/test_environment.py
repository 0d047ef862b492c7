"""The environment that every command prepares before torch, Ray or vLLM is imported."""

import os

import pytest

from verl_relift.run.environment import prepare_environment


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    """prepare_environment changes os.environ itself; give it a copy."""
    monkeypatch.setattr(os, "environ", dict(os.environ))


@pytest.mark.parametrize(
    ("platform", "kept"), [("", False), ("cpu", False), ("nvidia", False), (" NVIDIA ", False), ("amd", True)]
)
def test_what_slurm_sets_for_amd_does_not_reach_the_workers_elsewhere(platform, kept):
    os.environ |= {"VERL_PLATFORM": platform, "CUDA_VISIBLE_DEVICES": "0,1", "ROCR_VISIBLE_DEVICES": "0,1"}
    prepare_environment()
    assert ("ROCR_VISIBLE_DEVICES" in os.environ) == kept


def test_gpus_that_were_chosen_stay_chosen():
    os.environ |= {"VERL_PLATFORM": "nvidia", "CUDA_VISIBLE_DEVICES": "2,3"}
    prepare_environment()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2,3"


def test_what_the_user_has_set_stays():
    os.environ |= {"VERL_PLATFORM": "cpu", "OMP_NUM_THREADS": "7"}
    prepare_environment()
    assert os.environ["OMP_NUM_THREADS"] == "7"


@pytest.mark.parametrize(
    ("platform", "given", "cache"),
    [
        ("cpu", {}, "/home/me/.cache/torchinductor"),
        ("nvidia", {}, "/home/me/.cache/torchinductor"),
        ("nvidia", {"XDG_CACHE_HOME": "/c"}, "/c/torchinductor"),
        ("nvidia", {"TORCHINDUCTOR_CACHE_DIR": "/mine"}, "/mine"),
    ],
)
def test_compiled_kernels_are_where_no_other_user_can_put_some(platform, given, cache):
    for name in ("XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR"):
        os.environ.pop(name, None)
    os.environ |= {"VERL_PLATFORM": platform, "HOME": "/home/me", **given}
    prepare_environment()
    assert os.environ.get("TORCHINDUCTOR_CACHE_DIR") == cache
