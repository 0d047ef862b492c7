"""What a prompt has written of its answer is neither trained on twice nor forgotten by the grader."""

import pytest

from verl_relift.data.chat import answer_start, opens_thought, prompt_ids, without_repetition
from verl_relift.quickstart.base_model import build_tokenizer

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
