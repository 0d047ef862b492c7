"""Only verified demonstrations of the right length, tokenized once."""

import pytest

from verl_relift.demonstrations.verify import OverlongDemonstration, Rejected, Solution, make_demonstrations
from verl_relift.quickstart.base_model import build_tokenizer
from verl_relift.settings import DemonstrationSettings, Overlong
from verl_relift.types import Question

SOLUTION = "<think>7+7=14\n14+3=17\n</think>\\boxed{17}"
CHAT = [{"role": "assistant", "content": SOLUTION}]


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def make(tokenizer, *texts, ground_truth="17", overlong=Overlong.DROP, **settings):
    question = Question("q", "1-000000", ({"role": "user", "content": "7*2+3=?"},), ground_truth)
    solutions = [Solution(question, text, 4, overlong) for text in texts]
    return make_demonstrations(solutions, tokenizer, lambda _: (2, 9, 3), DemonstrationSettings(**settings))


@pytest.mark.parametrize("text", [CHAT, SOLUTION])
def test_a_correct_solution_becomes_tokens_with_an_end(tokenizer, text):
    (result,) = make(tokenizer, text)
    assert tokenizer.decode(result.response_ids[:-1]) == SOLUTION
    assert result.response_ids[-1] == tokenizer.eos_token_id
    assert (result.question, result.prompt_ids, result.step) == ("q", (2, 9, 3), 4)


@pytest.mark.parametrize("text", [None, "", [], [{"role": "assistant", "content": ""}]])
def test_no_solution(tokenizer, text):
    assert make(tokenizer, text) == [Rejected.MISSING]


def test_a_wrong_answer_is_rejected_unless_verification_is_off(tokenizer):
    assert make(tokenizer, CHAT, ground_truth="18") == [Rejected.WRONG]
    assert make(tokenizer, CHAT, ground_truth="18", verify=False)[0].question == "q"


def test_a_ground_truth_that_no_answer_could_match_is_told_apart(tokenizer):
    assert make(tokenizer, CHAT, ground_truth="") == [Rejected.UNVERIFIABLE]


def test_a_long_demonstration_is_dropped_and_never_cut(tokenizer):
    length = len(tokenizer.encode(SOLUTION, add_special_tokens=False)) + 1
    assert len(make(tokenizer, CHAT, max_tokens=length)[0].response_ids) == length
    assert make(tokenizer, CHAT, max_tokens=length - 1) == [Rejected.OVERLONG]
    with pytest.raises(OverlongDemonstration, match=f"{length} tokens.*method.demonstrations.max_tokens={length - 1}"):
        make(tokenizer, CHAT, max_tokens=length - 1, overlong=Overlong.ERROR)


def test_the_last_assistant_message_is_the_solution(tokenizer):
    chat = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "\\boxed{1}"}, *CHAT]
    assert tokenizer.decode(make(tokenizer, chat)[0].response_ids[:-1]) == SOLUTION


def test_a_batch_keeps_its_order(tokenizer):
    results = make(tokenizer, None, CHAT, "\\boxed{18}", "\\boxed{17}")
    assert results[0] is Rejected.MISSING and results[2] is Rejected.WRONG
    assert [tokenizer.decode(results[i].response_ids[:-1]) for i in (1, 3)] == [SOLUTION, "\\boxed{17}"]
