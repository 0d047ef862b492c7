"""Only verified demonstrations of the right length, tokenised once."""

import pytest

from verl_relift.demonstrations.verify import OverlongDemonstration, Question, Rejected, make_demonstration
from verl_relift.quickstart.base_model import build_tokenizer
from verl_relift.settings import DemonstrationSettings, Overlong

SOLUTION = "<think>7+7=14\n14+3=17\n</think>\\boxed{17}"
CHAT = [{"role": "assistant", "content": SOLUTION}]


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def question(target, ground_truth="17") -> Question:
    return Question("q", prompt_ids=(2, 9, 3), ground_truth=ground_truth, target=target)


@pytest.mark.parametrize("target", [CHAT, SOLUTION])
def test_a_correct_solution_becomes_tokens_with_an_end(tokenizer, target):
    result = make_demonstration(question(target), 4, tokenizer, DemonstrationSettings())
    assert tokenizer.decode(result.response_ids[:-1]) == SOLUTION
    assert result.response_ids[-1] == tokenizer.eos_token_id
    assert (result.question, result.prompt_ids, result.step) == ("q", (2, 9, 3), 4)


@pytest.mark.parametrize("target", [None, "", [], [{"role": "assistant", "content": ""}]])
def test_no_solution(tokenizer, target):
    assert make_demonstration(question(target), 1, tokenizer, DemonstrationSettings()) is Rejected.MISSING


def test_a_wrong_answer_is_rejected_unless_verification_is_off(tokenizer):
    wrong = question(CHAT, ground_truth="18")
    assert make_demonstration(wrong, 1, tokenizer, DemonstrationSettings()) is Rejected.WRONG
    assert make_demonstration(wrong, 1, tokenizer, DemonstrationSettings(verify=False)).question == "q"


def test_a_long_demonstration_is_dropped_and_never_cut(tokenizer):
    length = len(tokenizer.encode(SOLUTION, add_special_tokens=False)) + 1
    fits, short = DemonstrationSettings(max_tokens=length), DemonstrationSettings(max_tokens=length - 1)
    assert len(make_demonstration(question(CHAT), 1, tokenizer, fits).response_ids) == length
    assert make_demonstration(question(CHAT), 1, tokenizer, short) is Rejected.OVERLONG
    with pytest.raises(OverlongDemonstration, match=f"{length} tokens.*max_tokens={length - 1}"):
        make_demonstration(
            question(CHAT), 1, tokenizer, DemonstrationSettings(max_tokens=length - 1, overlong=Overlong.ERROR)
        )


def test_the_last_assistant_message_is_the_solution(tokenizer):
    chat = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "\\boxed{1}"}, *CHAT]
    result = make_demonstration(question(chat), 1, tokenizer, DemonstrationSettings())
    assert tokenizer.decode(result.response_ids[:-1]) == SOLUTION
