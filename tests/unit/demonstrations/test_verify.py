"""Only verified demonstrations of the right length, tokenized once."""

import pytest
from transformers import AutoTokenizer

from verl_relift.data.chat import prompt_ids
from verl_relift.data.errors import DataError
from verl_relift.demonstrations.verify import OverlongDemonstration, Rejected, Solution, make_demonstrations
from verl_relift.quickstart.base_model import build_tokenizer
from verl_relift.rewards.function import RewardFunction
from verl_relift.settings import DemonstrationSettings, Overlong
from verl_relift.testing.tokenizer import make_tokenizer
from verl_relift.types import Question

SOLUTION = "<think>7+7=14\n14+3=17\n</think>\\boxed{17}"
MESSAGES = ({"role": "user", "content": "7*2+3=?"},)
REWARD = RewardFunction()
CHAT = [{"role": "assistant", "content": SOLUTION}]


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def make(tokenizer, *texts, ground_truth="17", overlong=Overlong.DROP, reward=REWARD, **settings):
    question = Question("q", "1-000000", MESSAGES, ground_truth, data_source="sums", extra_info={"level": "hard"})
    solutions = [Solution(question, text, 4, overlong) for text in texts]
    encode = lambda asked: tuple(prompt_ids(tokenizer, asked.messages))  # noqa: E731
    return make_demonstrations(solutions, tokenizer, encode, DemonstrationSettings(**settings), reward)


@pytest.mark.parametrize("text", [CHAT, SOLUTION])
def test_a_correct_solution_becomes_tokens_with_an_end(tokenizer, text):
    (result,) = make(tokenizer, text)
    assert tokenizer.decode(result.response_ids[:-1]) == SOLUTION
    assert result.response_ids[-1] == tokenizer.eos_token_id
    assert (result.question, list(result.prompt_ids), result.step) == ("q", prompt_ids(tokenizer, MESSAGES), 4)


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


def test_the_assistant_message_is_the_solution_and_there_is_one(tokenizer):
    chat = [{"role": "user", "content": "?"}, *CHAT]
    assert tokenizer.decode(make(tokenizer, chat)[0].response_ids[:-1]) == SOLUTION
    with pytest.raises(DataError, match="2 messages of the assistant"):
        make(tokenizer, [*chat, *CHAT])


def test_a_batch_keeps_its_order(tokenizer):
    results = make(tokenizer, None, CHAT, "\\boxed{18}", "\\boxed{17}")
    assert results[0] is Rejected.MISSING and results[2] is Rejected.WRONG
    assert [tokenizer.decode(results[i].response_ids[:-1]) for i in (1, 3)] == [SOLUTION, "\\boxed{17}"]


# ---- the prompt has begun the answer ---------------------------------------------------------------------------------


@pytest.fixture
def thinking():
    """The tokenizer of a model whose prompt opens the thought."""
    tokenizer = build_tokenizer()
    tokenizer.chat_template += "{% if add_generation_prompt %}<think>\n{% endif %}"
    return tokenizer


@pytest.mark.parametrize("text", ["<think>7*2+3=17</think>\\boxed{17}", "<think>\n7*2+3=17</think>\\boxed{17}"])
def test_a_thought_that_the_prompt_has_opened_is_not_opened_again(thinking, text):
    (result,) = make(thinking, text)
    sequence = thinking.decode([*result.prompt_ids, *result.response_ids[:-1]])
    assert sequence == "<|user|>7*2+3=?<|assistant|><think>\n7*2+3=17</think>\\boxed{17}"


def test_a_demonstration_that_never_closes_the_prompts_thought_is_rejected(thinking, tokenizer):
    assert make(thinking, "7*2+3=17. \\boxed{17}") == [Rejected.WRONG]
    assert make(tokenizer, "7*2+3=17. \\boxed{17}")[0].question == "q"


def test_the_name_of_a_special_token_in_a_solution_is_text(tmp_path):
    folder = make_tokenizer(tmp_path, [SOLUTION], 300)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "<think>7*2+3=17, <|end|> of it</think>\\boxed{17}"
    (result,) = make(tokenizer, text)
    ids = list(result.response_ids)
    assert ids.count(tokenizer.eos_token_id) == 1 and ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(ids[:-1]) == text
    # The marks of a thought are special tokens here, and stay what the policy writes.
    assert [ids.count(tokenizer.convert_tokens_to_ids(mark)) for mark in ("<think>", "</think>")] == [1, 1]
    (plain,) = make(tokenizer, SOLUTION)
    assert list(plain.response_ids[:-1]) == tokenizer.encode(SOLUTION, add_special_tokens=False)


# ---- the reward function of rollouts ---------------------------------------------------------------------------------


def test_demonstrations_are_verified_by_the_rules_of_rollouts(tokenizer):
    required = RewardFunction(thinking="required")
    assert make(tokenizer, "\\boxed{17}", reward=required) == [Rejected.WRONG]
    assert make(tokenizer, CHAT, reward=required)[0].question == "q"


def test_an_own_reward_function_verifies_what_is_not_mathematics(tokenizer):
    asked = []

    def reward(data_source, solution_str, ground_truth, extra_info, bonus):
        asked.append((data_source, extra_info, bonus))
        return float(solution_str.count("=") == ground_truth["steps"]) + bonus

    own = RewardFunction(reward, correct_from=1.0, bonus=0.1)
    results = make(tokenizer, "7*2=14", "7*2=14=14", ground_truth={"steps": 1}, reward=own)
    assert results[0].question == "q" and results[1] is Rejected.WRONG
    assert asked == [("sums", {"level": "hard"}, 0.1)] * 2
