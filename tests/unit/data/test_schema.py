"""Rows to Arrow and parquet and back, whatever the text."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_preprocess.output import write_rows
from verl_relift.data.errors import DataError, Reason
from verl_relift.data.fields import chat, target_text
from verl_relift.data.schema import SCHEMA, Row, to_batch, validate
from verl_relift.data.sources import parse_json

text = st.text(st.characters(exclude_categories=["Cs"]))
message = st.tuples(st.sampled_from(["system", "user", "assistant"]), text)
rows = st.builds(
    Row,
    data_source=text,
    prompt=st.lists(message, min_size=1, max_size=4),
    target=st.none() | text,
    ground_truth=text,
    index=st.integers(0, 2**62),
    split=st.sampled_from(["train", "test"]),
    level=st.none() | text,
    id=st.none() | text,
    ability=text,
)


def plain(row: Row) -> dict:
    return {
        "data_source": row.data_source,
        "prompt": [{"role": role, "content": content} for role, content in row.prompt],
        "target": None if row.target is None else [{"role": "assistant", "content": row.target}],
        "ability": row.ability,
        "reward_model": {"style": "rule", "ground_truth": row.ground_truth},
        "extra_info": {"index": row.index, "split": row.split, "level": row.level, "id": row.id},
    }


@given(st.lists(rows, max_size=6))
def test_batch_holds_every_row(given_rows):
    batch = to_batch(given_rows)
    batch.validate(full=True)
    assert batch.schema == SCHEMA
    assert batch.to_pylist() == [plain(row) for row in given_rows]


@settings(max_examples=25, deadline=None)
@given(given_rows=st.lists(rows, min_size=1, max_size=6))
def test_parquet_round_trip_and_same_bytes(tmp_path_factory, given_rows):
    folder = tmp_path_factory.mktemp("rows")
    write_rows(folder, {"a.parquet": given_rows, "b.parquet": given_rows})
    assert (folder / "a.parquet").read_bytes() == (folder / "b.parquet").read_bytes()
    assert pq.read_table(folder / "a.parquet").to_pylist() == [plain(row) for row in given_rows]
    assert sorted(path.name for path in folder.iterdir()) == ["a.parquet", "b.parquet"]


def test_datasets_reads_the_schema_as_verl_does(tmp_path):
    import datasets

    write_rows(tmp_path, {"a.parquet": [Row("s", [("user", "q")], None, "1", 0, "train")]})
    write_rows(tmp_path, {"b.parquet": [Row("s", [("user", "q")], "t", "1", 0, "train", level="1", id="x")]})
    parts = [
        datasets.load_dataset("parquet", data_files=str(tmp_path / name), cache_dir=str(tmp_path / "cache"))["train"]
        for name in ("a.parquet", "b.parquet")
    ]
    joined = datasets.concatenate_datasets(parts)
    assert joined[0]["target"] is None
    assert joined[1]["target"] == [{"role": "assistant", "content": "t"}]


def test_no_rows_still_make_a_file(tmp_path):
    write_rows(tmp_path, {"a.parquet": []})
    assert pq.read_table(tmp_path / "a.parquet").schema.equals(SCHEMA)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"prompt": [("user", " \n")]}, Reason.EMPTY_PROMPT),
        ({"prompt": []}, Reason.EMPTY_PROMPT),
        ({"prompt": [("system", "only this")]}, Reason.EMPTY_PROMPT),
        ({"ground_truth": " "}, Reason.NO_GROUND_TRUTH),
        ({"target": ""}, Reason.WRONG_TYPE),
    ],
)
def test_validate_names_the_fault(change, reason):
    good = {
        "data_source": "s",
        "prompt": [("user", "q")],
        "target": "t",
        "ground_truth": "1",
        "index": 0,
        "split": "train",
    }
    validate(Row(**good))
    with pytest.raises(DataError) as caught:
        validate(Row(**good | change))
    assert caught.value.reason == reason


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | text, lambda inner: st.lists(inner) | st.dictionaries(text, inner)
    )
)
def test_any_value_as_chat_or_target_is_read_or_reported(value):
    for read in (lambda: chat(value, "prompt"), lambda: target_text(value)):
        try:
            read()
        except DataError as error:
            assert error.reason in (Reason.WRONG_TYPE, Reason.EMPTY_PROMPT)


@given(st.binary(max_size=60) | text.map(str.encode))
def test_any_line_is_an_object_or_a_named_fault(line):
    value = parse_json(line)
    if isinstance(value, DataError):
        assert value.reason in (Reason.MALFORMED_JSON, Reason.INVALID_UTF8, Reason.WRONG_TYPE)
    else:
        pa.array([str(value)])


def test_the_three_known_forms_of_a_target():
    assert target_text([{"role": "assistant", "content": "t"}]) == target_text("t") == "t"
    assert target_text(None) is target_text([]) is target_text("  ") is None
