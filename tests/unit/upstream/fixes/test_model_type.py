"""mbridge on a Megatron without `ModelType.encoder_and_decoder`."""

import importlib
import inspect

import verl  # noqa: F401  loads the plugin

from verl_relift.upstream.registry import ORIGINALS


def test_mbridge_still_asks_for_the_removed_model_type():
    """The day this fails, `know_removed_model_type` can go."""
    assert "ModelType.encoder_and_decoder" in inspect.getsource(importlib.import_module("mbridge.core.util"))
    assert not hasattr(ORIGINALS["mbridge.core.util:ModelType"], "encoder_and_decoder")


def test_no_model_is_of_the_removed_type():
    types, known = importlib.import_module("mbridge.core.util").ModelType, ORIGINALS["mbridge.core.util:ModelType"]
    assert types.encoder_or_decoder is known.encoder_or_decoder
    assert known.encoder_or_decoder != types.encoder_and_decoder
