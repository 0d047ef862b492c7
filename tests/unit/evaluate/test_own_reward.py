"""An evaluation grades with a function of the user's by the rules of training."""

import json
import re
from dataclasses import replace

import pytest

from tests.unit.evaluate.test_input import row, write
from verl_relift.evaluate import __main__ as evaluate
from verl_relift.evaluate.engine import Completion
from verl_relift.evaluate.errors import EvaluationError
from verl_relift.evaluate.own_reward import OwnReward, score_and_store
from verl_relift.evaluate.questions import EvaluationQuestion, read_questions
from verl_relift.evaluate.store import GENERATIONS, Store, read_generations
from verl_relift.evaluate.summary import collect, summarize, table
from verl_relift.evaluate.tokens import encode_prompts
from verl_relift.quickstart.base_model import build_tokenizer

SOURCE = """
def compute_score(data_source, solution_str, ground_truth, extra_info):
    return float(solution_str == ground_truth)


def shaped(data_source, solution_str, ground_truth, extra_info, bonus=0.1):
    right = solution_str == ground_truth
    return {"score": right + bonus, "acc": right, "pred": solution_str}


def bare(data_source, solution_str, ground_truth, extra_info):
    return 1.1 if solution_str == ground_truth else 0.1


async def named(data_source, solution_str, ground_truth, extra_info):
    return {"score": 0.0, "acc": 0.5, "outcome": "correct" if solution_str == ground_truth else "too_short"}


class Counting:
    made = 0

    def __init__(self, weight=1.0):
        Counting.made += 1
        self.weight = weight

    def __call__(self, data_source, solution_str, ground_truth, extra_info):
        assert Counting.made == 1
        return {"score": self.weight, "acc": solution_str == extra_info["hidden"] and data_source == "sums"}


def thought(data_source, solution_str, ground_truth, extra_info, prompt_opens_thought):
    return float(prompt_opens_thought)


def fails(data_source, solution_str, ground_truth, extra_info):
    return 1 / (len(solution_str) - 1)


def endless(data_source, solution_str, ground_truth, extra_info):
    return float("inf")
"""
CHAT = ({"role": "user", "content": "7*2+3=?"},)
QUESTION = EvaluationQuestion("k:0", "sums", CHAT, "17", {"hidden": "17"})


def load(tmp_path, name, correct_from=None, **kwargs):
    (tmp_path / "reward.py").write_text(SOURCE)
    return OwnReward.load(f"{tmp_path / 'reward.py'}:{name}", kwargs, correct_from)


def scored(tmp_path, reward, texts=("17", "18"), in_thought=()):
    store = Store(tmp_path / "out", {})
    completions = [Completion("k:0", sample, text, 5, False) for sample, text in enumerate(texts)]
    assert score_and_store(completions, [QUESTION], reward, store, in_thought) == 5 * len(texts)
    store.finish()
    return list(read_generations(tmp_path / "out"))


@pytest.mark.parametrize(
    ("name", "correct_from", "kwargs", "outcomes", "rewards"),
    [
        ("compute_score", None, {}, ["correct", "wrong"], [1.0, 0.0]),
        ("shaped", None, {"bonus": 0.5}, ["correct", "wrong"], [1.5, 0.5]),
        ("bare", 1.0, {}, ["correct", "wrong"], [1.1, 0.1]),
        ("named", None, {}, ["wrong", "too_short"], [0.0, 0.0]),  # half right is not right
        ("Counting", None, {"weight": 3.0}, ["correct", "wrong"], [3.0, 3.0]),
    ],
)
def test_what_is_right_is_what_training_takes_for_right(tmp_path, name, correct_from, kwargs, outcomes, rewards):
    rows = scored(tmp_path, load(tmp_path, name, correct_from, **kwargs))
    assert [one.outcome for one in rows] == outcomes
    assert [one.reward for one in rows] == pytest.approx(rewards)


def test_a_function_without_a_name_is_verls_name(tmp_path):
    (tmp_path / "reward.py").write_text(SOURCE)
    reward = OwnReward.load(str(tmp_path / "reward.py"), {}, None)
    assert reward.settings["reward_function"] == "reward.py:compute_score" and len(reward.settings["sha256"]) == 64


def test_a_function_of_a_package_is_that_of_training(tmp_path, monkeypatch):
    from verl.utils.import_utils import load_extern_object

    package = tmp_path / "my_package_of_rewards"
    package.mkdir()
    (package / "sums.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    for path in ("pkg://my_package_of_rewards.sums", "pkg://my_package_of_rewards/sums"):
        reward = OwnReward.load(f"{path}:shaped", {"bonus": 0.25}, None)
        assert reward.settings["reward_function"] == f"{path}:shaped" and len(reward.settings["sha256"]) == 64
        assert load_extern_object(path, "shaped") is not None
    assert OwnReward.load(path, {}, None).settings["reward_function"] == f"{path}:compute_score"
    assert [one.reward for one in scored(tmp_path, reward)] == pytest.approx([1.25, 0.25])
    assert OwnReward.load(f"file://{package / 'sums.py'}:shaped", {}, None).settings["reward_function"] == (
        "sums.py:shaped"
    )
    with pytest.raises(EvaluationError, match=r"--reward-function: reward cannot be loaded from pkg://no\.such \("):
        OwnReward.load("pkg://no.such:reward", {}, None)


def test_the_grader_with_settings_of_a_run_is_a_function_too(tmp_path):
    rules = {"conventions": ["phrase"], "thinking": "optional"}
    reward = OwnReward.load("pkg://verl_relift.rewards.verl_hook:compute_score", rules, None)
    rows = scored(tmp_path, reward, texts=("The answer is 17", "\\boxed{17}"))
    assert [one.outcome for one in rows] == ["correct", "no_answer"]


def test_the_answer_it_names_votes_and_its_rewards_have_a_mean(tmp_path):
    rows = scored(tmp_path, load(tmp_path, "shaped", bonus=0.25), texts=("17", "17", "18"))
    summary = summarize(collect(rows))
    source = summary["sources"]["sums"]
    assert source["majority"]["value"] == 1.0 and source["mean_reward"] == pytest.approx(2 / 3 + 0.25)
    assert "reward" in table(summary)


def test_it_is_told_whether_the_prompt_opens_a_thought(tmp_path):
    assert scored(tmp_path, load(tmp_path, "thought"), in_thought={"k:0"})[0].outcome == "correct"
    assert "<think>" not in scored(tmp_path, load(tmp_path, "thought"))[0].response


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fails", r"failed on sample 1 of question k:0 \(the reward function raised ZeroDivisionError"),
        ("bare", r"returned 0\.1, which is neither 0 nor 1, and no acc: set --correct-from"),
        ("endless", r"returned inf \(float\), which is not finite"),
    ],
)
def test_a_function_that_fails_ends_the_evaluation_and_earlier_responses_stay(tmp_path, name, message):
    with pytest.raises(EvaluationError, match=message) as caught:
        scored(tmp_path, load(tmp_path, name), texts=("x" * 2, "x"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("named", "kwargs", "message"),
    [
        ("missing.py", {}, r"^--reward-function .*missing\.py: no such file; correct"),
        ("reward.py:misspelt", {}, r"reward\.py has .* and no misspelt; set --reward-function FILE:"),
        ("reward.py:SOURCE", {}, r"--reward-function FILE:SOURCE: not a function"),
        ("reward.py:shaped", {"bonsu": 1}, r"--reward-function: shaped cannot be called: .*'bonsu'"),
        ("reward.py:Counting", {"wieght": 1}, r"--reward-kwargs: Counting cannot be called: .*'wieght'"),
    ],
)
def test_a_function_that_cannot_be_called_is_named_first(tmp_path, named, kwargs, message):
    (tmp_path / "reward.py").write_text(SOURCE + "\nSOURCE = 1\n")
    with pytest.raises(EvaluationError, match=message):
        OwnReward.load(str(tmp_path / named), kwargs, None)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--reward-kwargs", "a=1"], "--reward-kwargs has no effect without --reward-function"),
        (["--correct-from", "0"], "--correct-from has no effect without --reward-function"),
        (["--reward-function", "FILE", "--thinking", "required"], "--thinking has no effect with --reward-function"),
        (["--reward-function", "FILE", "--conventions", "boxed"], "--conventions has no effect with"),
        (["--reward-function", "FILE", "--correct-from", "nan"], "--correct-from nan must be finite"),
        (["--reward-function", "FILE", "--reward-kwargs", "bonus"], "--reward-kwargs bonus: expected KEY=VALUE"),
        (["--reward-function", "FILE", "--reward-kwargs", "a=[1"], "--reward-kwargs: .*correct the value"),
        (["--chat-template-kwargs", "=1"], "--chat-template-kwargs =1: expected KEY=VALUE"),
        (["--reward-function", "nowhere.py"], "--reward-function nowhere.py: no such file"),
    ],
)
def test_flags_that_would_be_ignored_or_fail_end_with_2(tmp_path, capsys, flags, message):
    (tmp_path / "reward.py").write_text(SOURCE)
    data = write(tmp_path / "a.parquet", [row()])
    flags = [flag.replace("FILE", str(tmp_path / "reward.py")) for flag in flags]
    with pytest.raises(SystemExit) as caught:
        evaluate.main(["--model", str(tmp_path), "--data", str(data), "--output", str(tmp_path / "o"), *flags])
    lines = capsys.readouterr().err.splitlines()
    assert caught.value.code == 2 and len(lines) == 1
    assert re.search(message, lines[0]), lines


def test_values_are_read_as_in_training():
    values = evaluate._values("--x", ["bonus=0.2", "names=[a, b]", "deep=true", "text=a=b"])
    assert values == {"bonus": 0.2, "names": ["a", "b"], "deep": True, "text": "a=b"}


def test_ground_truths_of_an_own_function_need_not_be_mathematics(tmp_path):
    rows = [row(truth="") | {"extra_info": {"hidden": "x"}}]
    path = write(tmp_path / "a.parquet", rows)
    (question,), _ = read_questions([path], mathematics=False)
    assert question.ground_truth == "" and question.extra_info == {"hidden": "x"}
    with pytest.raises(EvaluationError, match="ground_truth"):
        read_questions([path])
    with pytest.raises(EvaluationError, match="ground_truth"):
        read_questions([write(tmp_path / "b.parquet", [row(truth=None)])], mathematics=False)


def test_rewards_are_kept_with_the_responses_and_the_grader_gives_none(tmp_path):
    one, _ = scored(tmp_path, load(tmp_path, "compute_score"))
    first, _ = (tmp_path / "out" / GENERATIONS).read_text().splitlines()
    assert json.loads(first)["reward"] == 1.0
    store = Store(tmp_path / "graded", {})
    store.append(replace(one, reward=None))
    store.finish()
    assert "reward" not in json.loads((tmp_path / "graded" / GENERATIONS).read_text())
    assert "mean_reward" not in summarize(collect(read_generations(tmp_path / "graded")))["sources"]["sums"]


def test_arguments_of_the_chat_template():
    tokenizer = build_tokenizer()
    tokenizer.chat_template += "{% if brief %}7{% endif %}"
    plain = encode_prompts(tokenizer, [QUESTION])["k:0"]
    assert len(encode_prompts(tokenizer, [QUESTION], {"brief": True})["k:0"]) == len(plain) + 1
    assert encode_prompts(tokenizer, [QUESTION], {"brief": False})["k:0"] == plain
    with pytest.raises(EvaluationError, match=r"--chat-template-kwargs\.breif: the chat template has no such setting"):
        encode_prompts(tokenizer, [QUESTION], {"breif": True})
