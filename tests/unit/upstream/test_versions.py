"""The versions that the patches were written for."""

import pytest

from verl_relift.upstream import versions


def test_a_missing_package_and_an_unsupported_version_are_named(monkeypatch):
    monkeypatch.setitem(versions.SUPPORTED, "no-such-package", "1")
    with pytest.raises(versions.UnsupportedVersion, match="no-such-package is not installed"):
        versions.require("no-such-package")
    monkeypatch.setitem(versions.SUPPORTED, "mbridge", "0.1")
    with pytest.raises(versions.UnsupportedVersion, match=r"mbridge 0\.15\.1 is installed.* written for 0\.1;"):
        versions.require("mbridge")
    monkeypatch.setitem(versions.SUPPORTED, "mbridge", "0.15.1")
    assert versions.require("mbridge") == "0.15.1"
