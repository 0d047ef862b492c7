"""mbridge on a Megatron without `ModelType.encoder_and_decoder`."""

import importlib
import inspect
from enum import Enum
from types import SimpleNamespace

import verl  # noqa: F401  loads the plugin

from verl_relift.upstream.fixes import model_type
from verl_relift.upstream.fixes.model_type import know_removed_model_type


def test_mbridge_still_asks_for_the_removed_model_type():
    """The day this fails, `know_removed_model_type` can go."""
    assert "ModelType.encoder_and_decoder" in inspect.getsource(importlib.import_module("mbridge.core.util"))


def test_no_model_is_of_the_removed_type():
    known = Enum("ModelType", ["encoder_or_decoder"])
    assert know_removed_model_type.needed(SimpleNamespace(ModelType=known))
    types = model_type._ModelTypes(known)
    assert types.encoder_or_decoder is known.encoder_or_decoder
    assert known.encoder_or_decoder != types.encoder_and_decoder
    assert not know_removed_model_type.needed(SimpleNamespace(ModelType=types))
