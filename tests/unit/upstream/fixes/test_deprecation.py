"""verl's warning that mbridge will go."""

import warnings

import verl  # noqa: F401  loads the plugin
from verl.workers.config import McoreEngineConfig

from verl_relift.upstream.fixes.deprecation import silence_mbridge


def warned() -> list[str]:
    """The warnings of making a configuration with mbridge, by verl's categories."""
    with warnings.catch_warnings(record=True) as caught:
        McoreEngineConfig(vanilla_mbridge=True)
    return [str(one.message) for one in caught if issubclass(one.category, FutureWarning)]


def test_verl_still_warns_of_mbridge():
    """The day this fails, `silence_mbridge` can go."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert any("mbridge" in message for message in warned())
        silence_mbridge.apply(None)
        assert warned() == []
