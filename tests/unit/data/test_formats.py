"""Formats of demonstrations against those of their prompts."""

import pytest

from verl_relift.data.formats import foreign_format, unasked_thought

PLAIN = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}<|im_start|>assistant\n"
THINKS = PLAIN + "<think>\n"
ANSWER = "We add. \\boxed{3}"
THOUGHT = "<think>\nWe add.\n</think>\n\\boxed{3}"


@pytest.mark.parametrize(
    ("target", "template", "start", "problem"),
    [
        (ANSWER, PLAIN, "<|im_start|>assistant\n", None),
        (THOUGHT, PLAIN, "<|im_start|>assistant\n", None),
        (THOUGHT, THINKS, "<|im_start|>assistant\n<think>\n", None),
        ("We add.\n</think>\n\\boxed{3}", THINKS, "<|im_start|>assistant\n<think>\n", None),
        (ANSWER, THINKS, "<|im_start|>assistant\n<think>\n", "never closes it with </think>"),
        (f"{ANSWER}<|im_end|>", PLAIN, "", "'<|im_end|>', which chat templates write between messages"),
        (f"<|start_header_id|>assistant<|end_header_id|>\n\n{ANSWER}", PLAIN, "", "'<|start_header_id|>'"),
        (f"[/INST] {ANSWER}", PLAIN, "", "'[/INST]'"),
        (f"<start_of_turn>model\n{ANSWER}", PLAIN, "", "'<start_of_turn>'"),
        (f"<｜Assistant｜>{ANSWER}", PLAIN, "", "'<｜Assistant｜>'"),
        (
            f"<|begin_of_thought|>We add.<|end_of_thought|>{ANSWER}",
            PLAIN,
            "",
            "'<|begin_of_thought|>', of which neither",
        ),
        (f"◁think▷We add.◁/think▷{ANSWER}", PLAIN, "", "'◁think▷'"),
        (f"◁think▷We add.◁/think▷{ANSWER}", PLAIN + "◁think▷", "", None),
        ("We know that |a| < |b| <= [1, 2] and x<y>z.", PLAIN, "", None),
    ],
)
def test_another_format_is_named(target, template, start, problem):
    found = foreign_format(target, ["1 + 2 = ?"], template, start)
    assert found is None if problem is None else problem in found


def test_a_prompt_may_ask_for_a_format():
    asks = ["Write your reasoning between <reasoning> and </reasoning>.", "1 + 2 = ?"]
    assert foreign_format(f"<reasoning>We add.</reasoning>{ANSWER}", asks, PLAIN, "") is None
    assert foreign_format("The token <|im_end|> ends a turn.", ["What does <|im_end|> do?"], PLAIN, "") is None


def test_a_thought_that_nothing_asks_for_is_worth_a_warning():
    assert "of which neither" in unasked_thought(THOUGHT, ["1 + 2 = ?"], PLAIN)
    assert unasked_thought(THOUGHT, ["Think between <think> and </think>.", "1 + 2 = ?"], PLAIN) is None
    assert unasked_thought(THOUGHT, ["1 + 2 = ?"], THINKS) is None and unasked_thought(ANSWER, [""], PLAIN) is None
