"""`prepare_model` and the check of vocabularies, on a small real model folder."""

import json
import shutil

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from data_preprocess import prepare_model
from data_preprocess.prepare_model import edit_config, prepare
from data_preprocess.template import Template, system_prompt
from data_preprocess.vocabulary import ModelError, check_vocabulary
from verl_relift.data.errors import DataError
from verl_relift.testing.tokenizer import make_tokenizer


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    config = Qwen2Config(
        vocab_size=320,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=False,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    make_tokenizer(folder, ["some text and some more"], 300)
    return folder


def test_prepared_model_loads_with_its_changes(model, tmp_path):
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    out = prepare(model, tmp_path / "out", rope_theta=40000, max_positions=16384, template="think", link=True)
    config = AutoConfig.from_pretrained(out)
    assert config.max_position_embeddings == 16384
    assert config.rope_parameters["rope_theta"] == 40000
    tokenizer = AutoTokenizer.from_pretrained(out)
    chat = [{"role": "user", "content": "7*2?"}]
    system = system_prompt(Template.THINK)
    prompt = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert prompt == f"{system}\n\nUser:\n7*2?\n\nAssistant:\n"
    whole = tokenizer.apply_chat_template([*chat, {"role": "assistant", "content": "14"}], tokenize=False)
    assert whole.startswith(prompt + "14" + tokenizer.eos_token)
    own = tokenizer.apply_chat_template([{"role": "system", "content": "mine"}, *chat], tokenize=False)
    assert own.startswith("mine\n\nUser:")
    assert (out / "model.safetensors").is_symlink()
    logits = AutoModelForCausalLM.from_pretrained(out)(torch.tensor([[1, 2, 3]])).logits
    assert logits.shape == (1, 3, 320)
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before


def test_command_line(model, tmp_path, capsys):
    out = str(tmp_path / "out")
    arguments = ["--model", str(model), "--output", out, "--chat-template", "none", "--max-positions", "128"]
    assert prepare_model.main(arguments) == 0
    assert "tokenizer and model agree" in capsys.readouterr().out
    assert prepare_model.main(arguments) == 1
    assert "exists and is not empty" in capsys.readouterr().err


def test_own_template_must_show_the_question(model, tmp_path):
    (tmp_path / "mine.jinja").write_text("{{ messages[0]['content'] }}")
    prepare(model, tmp_path / "good", template=str(tmp_path / "mine.jinja"))
    (tmp_path / "mine.jinja").write_text("nothing")
    with pytest.raises(ModelError, match="omits the question"):
        prepare(model, tmp_path / "bad", template=str(tmp_path / "mine.jinja"))
    with pytest.raises(ModelError, match="no such file"):
        prepare(model, tmp_path / "bad", template="thinking")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good", "mine.jinja"]


def test_what_transformers_cannot_read_is_named_as_the_user_names_it(model, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    (broken / "tokenizer.json").unlink()
    with pytest.raises(DataError, match=f"{broken}: the tokenizer's files are missing"):
        prepare(broken, tmp_path / "out", max_positions=1024)
    config = json.loads((broken / "config.json").read_text()) | {"num_hidden_layers": -2}
    (broken / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=f"{broken}/config.json: transformers cannot read it"):
        prepare(broken, tmp_path / "out", max_positions=1024)
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


def test_weights_whose_download_broke_off(model, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    weights = next(broken.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match=rf"{weights}: is not a complete safetensors file"):
        prepare(broken, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_rope_in_both_spellings():
    assert edit_config({"rope_theta": 1e4}, 4e4, None) == {"rope_theta": 4e4}
    parameters = {"rope_type": "default", "rope_theta": 1e4}
    assert edit_config({"rope_parameters": parameters}, 4e4, None)["rope_parameters"]["rope_theta"] == 4e4
    for config in ({}, {"rope_theta": 1e4, "rope_scaling": {"rope_type": "llama3"}}):
        with pytest.raises(ModelError):
            edit_config(config, 4e4, None)


def test_vocabularies_agree(model):
    vocabulary = check_vocabulary(model)
    assert vocabulary.rows == 320 and vocabulary.tokens <= 300
    assert set(vocabulary.embeddings.values()) == {320}


def changed(model, folder, **config):
    for path in model.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    values = json.loads((folder / "config.json").read_text()) | config
    (folder / "config.json").write_text(json.dumps(values))
    return folder


def test_vocabularies_that_disagree(model, tmp_path):
    with pytest.raises(ModelError, match=r"vocabulary ends at 99; use the tokenizer that belongs"):
        check_vocabulary(changed(model, tmp_path, vocab_size=100))
    with pytest.raises(ModelError, match=r"has 320 rows, but vocab_size in config.json is 400"):
        check_vocabulary(changed(model, tmp_path, vocab_size=400))
    (tmp_path / "model.safetensors").write_bytes(b"xx")
    with pytest.raises(ModelError, match="not a safetensors file"):
        check_vocabulary(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ModelError, match=r"config.json: cannot be read"):
        check_vocabulary(tmp_path)


@pytest.mark.parametrize(
    ("model", "command"),
    [
        ("Qwen/Qwen2.5-Math-7B", "hf download Qwen/Qwen2.5-Math-7B --local-dir Qwen2.5-Math-7B"),
        ("Qwen2.5-Math-7B", "hf download OWNER/Qwen2.5-Math-7B --local-dir Qwen2.5-Math-7B"),
        ("/shared/base/Llama-3.1-8B", "hf download OWNER/Llama-3.1-8B --local-dir Llama-3.1-8B"),
    ],
)
def test_a_model_that_is_not_there_is_answered_with_the_command_that_downloads_it(model, command, tmp_path, capsys):
    assert prepare_model.main(["--model", model, "--output", str(tmp_path / "copy")]) == 1
    folder = command.split()[-1]
    assert capsys.readouterr().err == (
        f"error: --model {model}: no such folder; download it and give the folder: {command}, then --model {folder}\n"
    )
    assert not (tmp_path / "copy").exists()
