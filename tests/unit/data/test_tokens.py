"""Prompts are counted as training renders them: with the run's own template and variables."""

import json

import pytest

from verl_relift.data.tokens import TokenCounter
from verl_relift.quickstart.random_model import build_byte_tokenizer, main

TEMPLATE = (
    "{% for m in messages %}{{ m['content'] }}{% endfor %}{% if enable_thinking | default(true) %}<think>{% endif %}"
)
CHAT = [[("user", "question")]]


def test_a_template_and_its_variables_count(tmp_path):
    build_byte_tokenizer().save_pretrained(tmp_path)
    plain = TokenCounter.load(str(tmp_path), TEMPLATE).prompts(CHAT)[0]
    quiet = TokenCounter.load(str(tmp_path), TEMPLATE, {"enable_thinking": False}).prompts(CHAT)[0]
    assert (plain, quiet) == (len("question") + 1, len("question"))
    own = TokenCounter.load(str(tmp_path))
    assert own.prompts(CHAT)[0] == len("question") + 2  # <|user|> and <|assistant|>
    assert TokenCounter.load(str(tmp_path), TEMPLATE).answer_start() == "<think>"


def test_a_random_model_does_not_take_the_place_of_another(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["random_model", "--output", str(tmp_path), "--hidden-size", "16", "--layers", "1"])
    main()
    main()  # its own, again
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"vocab_size": 151936}))
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and f"{tmp_path} has another model" in capsys.readouterr().err
