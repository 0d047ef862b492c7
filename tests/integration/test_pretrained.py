"""A pretrained model of a real size: fetched once and cached, its facts, its tokenizer, and an evaluation of it.

Without network the tests are skipped with the reason, unless the model is in the cache.
"""

import json
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from verl_relift.data.schema import Row, to_batch
from verl_relift.pretrained.errors import ModelUnavailable
from verl_relift.pretrained.fetch import fetch
from verl_relift.pretrained.models import SMOLLM2

SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"


@pytest.fixture(scope="module")
def model():
    try:
        return fetch(SMOLLM2)
    except ModelUnavailable as error:
        pytest.skip(str(error))


def test_its_shape_is_the_releases(model):
    config = json.loads((model / "config.json").read_text())
    expected = {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "dtype": "bfloat16",
    }
    assert {name: config[name] for name in expected} == expected
    assert config["rope_parameters"]["rope_theta"] == 100000.0
    assert config["rms_norm_eps"] == pytest.approx(1e-5)
    generation = json.loads((model / "generation_config.json").read_text())
    assert (generation["bos_token_id"], generation["eos_token_id"], generation["pad_token_id"]) == (1, 2, 2)


def test_its_tokenizer_is_the_releases(model):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    assert len(tokenizer) == 49152
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.bos_token) == (
        "<|im_end|>",
        "<|im_end|>",
        "<|im_start|>",
    )
    text = "Tom has 1234 apples\n\n  naïve «日本» 😀"
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.convert_ids_to_tokens(ids)[:8] == ["Tom", "Ġhas", "Ġ", "1", "2", "3", "4", "Ġapples"]
    chat = [{"role": "user", "content": "Hi"}]
    asked = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    shown = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    assert shown == f"<|im_start|>system\n{SYSTEM}<|im_end|>\n{asked}"
    shown = tokenizer.apply_chat_template(
        [{"role": "system", "content": "Be brief."}, *chat], add_generation_prompt=True, tokenize=False
    )
    assert shown == f"<|im_start|>system\nBe brief.<|im_end|>\n{asked}"


def test_it_is_evaluated_with_long_prompts_seeds_and_truncation(model, tmp_path):
    """Two prompts of 2,000 tokens in one batch, and a short one; sampled, so requests are seeded."""
    long = "There are 12 apples in the box. " * 220 + "How many?"
    questions = ["What is 12+30?", long, "Hello. " + long]
    rows = [
        Row("facts", [("user", question)], None, "42" if i == 0 else "12", i, "test")
        for i, question in enumerate(questions)
    ]
    data, output = tmp_path / "test.parquet", tmp_path / "evaluation"
    pq.write_table(pa.Table.from_batches([to_batch(rows)]), data)
    command = [sys.executable, "-m", "verl_relift.evaluate", "--model", str(model), "--data", str(data)]
    command += ["--n", "2", "--temperature", "0.1", "--max-tokens", "12", "--output", str(output)]
    result = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"VERL_PLATFORM": "cpu"})
    assert result.returncode == 0, result.stderr
    responses = [json.loads(line) for line in (output / "generations.jsonl").read_text().splitlines()]
    assert len(responses) == 6
    assert all(one["tokens"] == 12 for one in responses if one["truncated"])
    short = [one for one in responses if one["question"] == questions[0]]
    assert all("12 + 30" in one["response"] for one in short)  # it adds up wrongly
    assert not all(one["truncated"] for one in short)  # its end token is known


@pytest.mark.slow
def test_two_steps_of_the_whole_command(model, tmp_path):
    """Train, export and report; so few steps need not make it better. Again, everything is done before."""
    from verl_relift.pretrained.__main__ import RUN

    command = [sys.executable, "-m", "verl_relift.pretrained", "trainer.total_training_steps=2", "trainer.save_freq=1"]
    folders = ("examples", "data_preprocess")
    for name in folders:
        (tmp_path / name).symlink_to(os.path.abspath(name))
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    first = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert first.returncode in (0, 1) and (tmp_path / RUN / "summary.json").exists(), first.stdout + first.stderr
    assert json.loads((tmp_path / RUN / "summary.json").read_text())["steps"] == 2
    again = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert again.stdout.count("done before") == 8
