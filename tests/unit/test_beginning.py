"""The beginning-of-sequence token: a Llama 3 sees the same ids in training, evaluation, export and sample usage."""

import ast
import re
from pathlib import Path

import pytest
from tokenizers import processors
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from data_preprocess import prepare_model
from verl_relift.data.chat import prompt_ids
from verl_relift.data.tokens import TokenCounter
from verl_relift.evaluate.questions import EvaluationQuestion
from verl_relift.evaluate.tokens import encode_prompts
from verl_relift.export.folder import _write_tokenizer
from verl_relift.rollout.prompts import prompt_token_ids
from verl_relift.testing.tokenizer import make_tokenizer

ROOT = Path(__file__).parents[2]
BOS = "<|begin_of_text|>"
QUESTION = "What is 7*2+3?"
MESSAGES = [{"role": "user", "content": QUESTION}]


def llama3(folder: Path, begins: bool = True) -> Path:
    """A base model with a tokenizer like Llama 3's: no chat template, and a post-processor that writes the token."""
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(make_tokenizer(folder, ["some text and some more"], 300))
    tokenizer.add_special_tokens({"bos_token": BOS})
    if begins:
        bos = (BOS, tokenizer.bos_token_id)
        template = processors.TemplateProcessing(single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[bos])
        tokenizer.backend_tokenizer.post_processor = template
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    return folder


@pytest.fixture(scope="module", params=["none", "boxed", "think"])
def model(request, tmp_path_factory):
    base = llama3(tmp_path_factory.mktemp("base"))
    assert AutoTokenizer.from_pretrained(base)("a")["input_ids"][0] == AutoTokenizer.from_pretrained(base).bos_token_id
    return prepare_model.prepare(base, tmp_path_factory.mktemp("model") / "prepared", template=request.param)


def usages() -> dict[str, ast.Call]:
    """Return every call of a chat template in what is shown to users, by its file."""
    card = "verl_relift/export/templates/model_card.md.j2"
    fence = re.compile(r"```python\n(.*?)```", re.DOTALL)
    blocks = {name: fence.findall((ROOT / name).read_text()) for name in ("README.md", card)}
    blocks["examples/inference/chat.py"] = [(ROOT / "examples/inference/chat.py").read_text()]
    calls = {}
    for name, sources in blocks.items():
        source = re.sub(r"{{.*?}}", "1", "\n".join(sources))
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "apply_chat_template":
                calls[name] = node
    return calls


def test_every_use_has_the_same_ids(model, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(model)
    expected = prompt_ids(tokenizer, MESSAGES)
    assert expected[0] == tokenizer.bos_token_id and expected.count(tokenizer.bos_token_id) == 1
    assert tokenizer.decode(expected).startswith(BOS)
    found = {
        "training": prompt_token_ids(tokenizer, MESSAGES, {}, 10_000),
        "evaluation": encode_prompts(tokenizer, [EvaluationQuestion("k", "s", tuple(MESSAGES), "17")])["k"],
    }
    exported = _write_tokenizer(model, tmp_path, None)
    found["export"] = prompt_ids(exported, MESSAGES)
    for name, call in usages().items():
        code = compile(ast.Expression(call), name, "eval")
        # Only a literal question differs from one place to another.
        ids = eval(code, {"tokenizer": exported, "question": QUESTION, "messages": MESSAGES, "system": []})
        text = exported.decode(ids)
        assert isinstance(ids[0], int), f"{name} passes a text, in front of which vLLM puts another token"
        assert text.count(BOS) == 1 and text.startswith(BOS), name
        found[name] = ids if QUESTION in text else expected
    assert found == dict.fromkeys(found, expected)
    assert {"README.md", "verl_relift/export/templates/model_card.md.j2", "examples/inference/chat.py"} <= found.keys()
    assert TokenCounter(tokenizer).prompts([[("user", QUESTION)]]) == [len(expected)]


def test_verls_own_tokenization_agrees(model):
    """It filters long prompts, and its agent loop samples, with these arguments."""
    from verl.utils import normalize_token_ids

    tokenizer = AutoTokenizer.from_pretrained(model)
    ids = tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, tokenize=True)
    assert list(normalize_token_ids(ids)) == prompt_ids(tokenizer, MESSAGES)


def test_a_tokenizer_that_writes_none_gets_none(tmp_path):
    base = llama3(tmp_path / "base", begins=False)
    tokenizer = AutoTokenizer.from_pretrained(prepare_model.prepare(base, tmp_path / "out", template="think"))
    assert tokenizer.bos_token_id not in prompt_ids(tokenizer, MESSAGES)


def test_a_template_of_ones_own_without_the_token_is_named(tmp_path, capsys):
    base = llama3(tmp_path / "base")
    template = tmp_path / "mine.jinja"
    for text, named in (("{{ messages[0]['content'] }}", True), ("{{ bos_token + messages[0]['content'] }}", False)):
        template.write_text(text)
        output = tmp_path / f"out-{named}"
        arguments = ["--model", str(base), "--output", str(output), "--chat-template", str(template)]
        assert prepare_model.main(arguments) == 0
        assert (f"puts {BOS} in front of a text, but the chat template does not" in capsys.readouterr().err) is named
