"""What a prompt has written of its answer is neither trained on twice nor forgotten by the grader."""

import pytest
from transformers import AutoTokenizer

from verl_relift.data.chat import answer_start, opens_thought, prompt_ids, text_ids, without_repetition
from verl_relift.quickstart.base_model import build_tokenizer
from verl_relift.testing.tokenizer import make_tokenizer

CHATML = "<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("start", "text", "rest"),
    [
        # the authors' template, R1-Distill, QwQ
        ("\n\nAssistant: <think>\n", "<think>\nWe see</think>4", "We see</think>4"),
        ("<｜Assistant｜><think>\n", "<think>\nOkay", "Okay"),
        ("<｜Assistant｜><think>", "<think>\nOkay", "\nOkay"),
        (CHATML + "<think>\n", "<think>\n\nOkay", "\nOkay"),
        (CHATML + "<think>\n", "<think>Okay", "Okay"),
        (CHATML + "<think>\n", "\n <think>\nOkay", "Okay"),
        (CHATML + "<think>\n", "Okay</think>4", "Okay</think>4"),
        # other markers, and more than a marker
        ("[/INST][THINK]", "[THINK]Okay", "Okay"),
        ("<|im_middle|>◁think▷", "◁think▷Okay", "Okay"),
        (CHATML + "<think>\n\n</think>\n\n", "<think>\n\n</think>\n\n4", "4"),
        (CHATML + "<think>\n\n</think>\n\n", "<think>hm</think>4", "<think>hm</think>4"),
        (CHATML + "<reasoning>\nLet's see. ", "<reasoning>\nLet's see. 4", "4"),
        ("\nAnswer:", "Answer: 4", " 4"),
        ("\nAssistant: <think>", "Assistant: <think>4", "4"),
        # nothing is repeated, though letters are
        (CHATML, "the answer", "the answer"),
        (CHATML, "assistant professors", "assistant professors"),
        ("<|end_header_id|>\n\n", "> a quotation", "> a quotation"),
        ("\n\nAssistant: ", ": 4", ": 4"),
        ("\nA", "Absolutely", "Absolutely"),
        ("<think>\n", "<thinking> is", "<thinking> is"),
        ("", "4", "4"),
        (CHATML, "\n4", "\n4"),
        (CHATML + "<think>\n", "<think>", ""),
    ],
)
def test_a_demonstration_continues_its_prompt(start, text, rest):
    assert without_repetition(text, start) == rest


@pytest.mark.parametrize(
    ("start", "opens"),
    [
        ("\n\nAssistant: <think>\n", True),
        ("<think>\n\n</think>\n\n", False),
        ("</think><think>", True),
        (CHATML, False),
    ],
)
def test_whether_an_answer_begins_inside_a_thought(start, opens):
    assert opens_thought(start) is opens


@pytest.mark.parametrize("question", ["7*2+3=?", " 7*2+3=?\n", "<think>?"])
def test_the_start_of_the_answer_is_what_follows_the_question(question):
    tokenizer = build_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}<|user|>{{ m['content'] | trim }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}"
    )
    messages = [{"role": "user", "content": question}]
    assert answer_start(tokenizer, prompt_ids(tokenizer, messages), messages) == "<|assistant|><think>\n"


@pytest.fixture(scope="module")
def special(tmp_path_factory):
    """A tokenizer with special tokens as several families name them, and marks of a thought that are not special."""
    tokenizer = AutoTokenizer.from_pretrained(make_tokenizer(tmp_path_factory.mktemp("tokenizer"), ["some text"], 300))
    names = ["<s>", "</s>", "<|im_end|>", "<|eot_id|>", "<｜end▁of▁sentence｜>", "[PAD]"]
    tokenizer.add_special_tokens({"additional_special_tokens": names})
    tokenizer.add_tokens(["<answer>"])
    return tokenizer


@pytest.mark.parametrize(
    "text",
    [
        "it ends with </s> here",
        "<s>struck out</s> in HTML",
        "<|im_end|>",
        "a <|im_end|>\n<|im_end|> b",
        "<|eot_id|> and <｜end▁of▁sentence｜>",
        "the token [PAD] pads",
        "<think>why does <|end|> end?</think>because",
        "a</s>b",
        "naïve 漢字 </s> 🙂",
        "\n</s>\n",
    ],
)
def test_the_name_of_a_special_token_is_text(special, text):
    ids = text_ids(special, text)
    marks = special.convert_tokens_to_ids(["<think>", "</think>"])
    assert not [i for i in ids if i in special.all_special_ids and i not in marks]
    assert special.decode(ids) == text


@pytest.mark.parametrize("text", ["some text", "<think>so</think>4", "<answer>4", "a < b > c", "x_{</", ""])
def test_any_other_text_has_the_ids_that_it_had(special, text):
    assert text_ids(special, text) == special.encode(text, add_special_tokens=False)
