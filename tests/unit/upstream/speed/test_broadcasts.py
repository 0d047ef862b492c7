"""mbridge's export of weights in one pipeline stage."""

import importlib
import inspect

import pytest
import verl  # noqa: F401  loads the plugin

from verl_relift.upstream.registry import ORIGINALS

NAMES = ("broadcast_from_megatron_pp", "broadcast_str_from_megatron_pp")


@pytest.fixture
def bridge():
    return importlib.import_module("mbridge.core.bridge")


def test_one_stage_broadcasts_nothing_and_several_do(bridge, monkeypatch):
    from megatron.core import parallel_state

    from verl_relift.upstream.speed.broadcasts import _where_there_are_several_stages

    assert all(getattr(bridge, name).__wrapped__ is ORIGINALS[f"mbridge.core.bridge:{name}"] for name in NAMES)
    sent = []
    broadcast = _where_there_are_several_stages(lambda value: sent.append(value) or value)
    for stages, expected in ((1, []), (2, ["weight"])):
        monkeypatch.setattr(parallel_state, "get_pipeline_model_parallel_world_size", lambda s=stages: s)
        assert broadcast("weight") == "weight"
        assert sent == expected


@pytest.mark.parametrize("name", NAMES)
def test_mbridge_still_broadcasts_within_one_stage(bridge, name):
    """The day this fails, `keep_to_one_stage` can go."""
    source = inspect.getsource(ORIGINALS[f"mbridge.core.bridge:{name}"])
    assert "all_gather_object" in source and "world_size() == 1" not in source
