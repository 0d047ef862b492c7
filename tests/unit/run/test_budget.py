"""Steps of supervised fine-tuning that spend what another run has spent, by hand."""

import json

import pytest

from verl_relift.run.budget import By, Spent, spent


def run(folder, *records: dict):
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def test_totals_of_a_run_that_collects_are_those_of_its_last_step(tmp_path):
    of_steps = [{"step": n, "relift/sft_demonstrations": 16 * n, "relift/sft_tokens": 4000 * n} for n in (1, 2, 3)]
    of_steps[1]["method/second_round_tokens"], of_steps[2]["method/second_round_tokens"] = 500, 700
    assert spent(run(tmp_path, *of_steps)) == Spent(demonstrations=48, tokens=12000, sampled=1200)


def test_rows_of_groups_are_counted_step_by_step(tmp_path):
    joined = {"method/demonstrations_joined": 8.0, "method/demonstration_tokens": 900.0}
    assert spent(run(tmp_path, joined, joined, {})) == Spent(demonstrations=16, tokens=1800, sampled=0)


def test_a_stream_counts_as_groups_do(tmp_path):
    used = {"method/demonstrations_used": 16.0, "method/demonstration_tokens": 450.0}
    assert spent(run(tmp_path, used, used)) == Spent(demonstrations=32, tokens=900, sampled=0)


def test_steps_spend_as_much():
    total = Spent(demonstrations=480, tokens=96_000, sampled=72_000)
    assert total.operations == 6 * 96_000 + 2 * 72_000
    # A step trains on 12 demonstrations of 400 tokens with their prompts.
    assert total.steps(By.DEMONSTRATIONS, 12.0, 400.0) == 40
    assert total.steps(By.TOKENS, 12.0, 400.0) == 20
    assert total.steps(By.OPERATIONS, 12.0, 400.0) == 25
    assert Spent(1, 1, 0).steps(By.TOKENS, 12.0, 400.0) == 1


def test_a_run_without_a_record_has_spent_nothing_that_is_known(tmp_path):
    with pytest.raises(OSError, match=r"metrics\.jsonl"):
        spent(tmp_path)
    with pytest.raises(ValueError, match=r"metrics\.jsonl is empty"):
        spent(run(tmp_path))
