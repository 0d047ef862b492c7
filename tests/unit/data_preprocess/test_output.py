"""Output files appear complete or not at all."""

import pytest

from data_preprocess.output import OutputFolder
from verl_relift.data.schema import Row, to_batch


def test_a_failure_leaves_no_files_and_loses_none(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"before")
    with pytest.raises(RuntimeError), OutputFolder(tmp_path) as output:
        output.parquet("a.parquet").write(to_batch([Row("s", [("user", "q")], None, "1", 0, "train")]))
        output.json("stats.json", {})
        raise RuntimeError("on the way")
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]
    assert (tmp_path / "a.parquet").read_bytes() == b"before"
