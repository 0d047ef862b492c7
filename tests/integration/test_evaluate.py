"""Tests the evaluation command with vLLM: numbers, resuming after an interruption, replicas."""

import json
import re
import subprocess
import sys
import tempfile
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from verl_relift.evaluate.__main__ import main
from verl_relift.quickstart.base_model import build_model, build_tokenizer
from verl_relift.testing.launch import listening, socket_files, with_empty_folders

pytest.importorskip("vllm", reason="vLLM is not installed")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Return a randomly initialized model, whose answers are nonsense, with its tokenizer."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(folder)
    build_model(len(tokenizer), tokenizer.eos_token_id, tokenizer.pad_token_id, seed=0).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    rows = [
        {
            "data_source": f"arithmetic/{level}",
            "prompt": [{"role": "user", "content": f"{'0+' * 40}{i}+{i}=?"}],  # together above vLLM's batch of tokens
            "reward_model": {"style": "rule", "ground_truth": str(2 * i)},
        }
        for level in ("easy", "hard")
        for i in range(12)
    ]
    path = tmp_path_factory.mktemp("data") / "questions.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def evaluate(model, data, output, *more):
    """Evaluate; while it runs, nobody else reaches it, and then nothing is left."""
    command = [sys.executable, "-m", "verl_relift.evaluate", "--model", model, "--data", data, "--output", output]
    command += ["--n", "2", "arithmetic/hard=1", "--temperature", "1.0", "--max-tokens", "24", *more]
    started, left = with_empty_folders(list(map(str, command)), output.with_suffix(".clean"))
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(started, stdout=out, stderr=err, text=True)
        ports, sockets = {}, set()
        while process.poll() is None:
            ports |= listening(process)
            sockets |= socket_files(process)
            time.sleep(0.2)
        out.seek(0), err.seek(0)
        ended = subprocess.CompletedProcess(command, process.returncode, out.read(), err.read())
    assert ports
    assert {port: where for port, where in ports.items() if not where[0].startswith("127.")} == {}
    assert all("/relift-run-" in str(path) for path in sockets), sockets
    assert left.read_text() == ""
    return ended


@pytest.fixture(scope="module")
def finished(model, data, tmp_path_factory):
    output = tmp_path_factory.mktemp("evaluation")
    ended = evaluate(model, data, output)
    assert ended.returncode == 0, ended.stderr
    return output, ended


def test_an_evaluation_from_start_to_end(finished, model):
    output, ended = finished
    summary = json.loads((output / "summary.json").read_text())
    assert summary["sources"]["arithmetic/easy"]["n"] == 2 and summary["sources"]["arithmetic/hard"]["n"] == 1
    assert sum(summary["sources"]["arithmetic/easy"]["outcomes"].values()) == 24
    rows = [json.loads(line) for line in (output / "generations.jsonl").read_text().splitlines()]
    assert len(rows) == 36 and len({(row["key"], row["sample"]) for row in rows}) == 36
    assert all(0 < row["tokens"] <= 24 for row in rows)
    assert {row["truncated"] for row in rows if row["tokens"] == 24} <= {True, False}
    assert len({row["response"] for row in rows}) > 20, "samples have seeds of their own"
    assert summary["settings"]["n"] == {"arithmetic/easy": 2, "arithmetic/hard": 1}
    assert "arithmetic/easy" in ended.stdout and "average" in ended.stdout
    assert not re.search(r"Traceback|leaked|Warning|^\[?W\d{4} ", ended.stderr, re.MULTILINE), ended.stderr


def test_an_interrupted_evaluation_continues_to_the_same_file(finished, model, data, tmp_path):
    whole, _ = finished
    lines = (whole / "generations.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "settings.json").write_text((whole / "settings.json").read_text())
    kept = lines[3:20]
    (tmp_path / "generations.jsonl").write_text("".join(kept) + lines[25][:40])
    ended = evaluate(model, data, tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert f"{len(kept)} responses found, {len(lines) - len(kept)} missing" in ended.stderr
    assert (tmp_path / "generations.jsonl").read_text() == "".join(lines)
    old, new = (json.loads((folder / "summary.json").read_text()) for folder in (whole, tmp_path))
    assert old.pop("timing")["generated_responses"] == 36 and new.pop("timing")["generated_responses"] == 19
    assert old == new


@pytest.mark.parametrize(
    ("more", "message"),
    [(["--seed", "1"], "seed: 0 in the folder, 1 now"), (["--max-tokens", "4096"], "512 positions; use --max-tokens")],
)
def test_an_invalid_command_ends_before_vllm_starts(finished, model, data, more, message, capsys):
    command = ["--model", str(model), "--data", str(data), "--output", str(finished[0])]
    command += ["--n", "2", "arithmetic/hard=1", "--temperature", "1.0", "--max-tokens", "24", *more]
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.slow
def test_replicas_give_the_same_responses(finished, model, data, tmp_path):
    whole, _ = finished
    ended = evaluate(model, data, tmp_path, "--replicas", "2")
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "generations.jsonl").read_text() == (whole / "generations.jsonl").read_text()
