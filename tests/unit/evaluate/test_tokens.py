"""What a prompt has opened is known when its responses are graded."""

import pytest

from verl_relift.evaluate.engine import Completion
from verl_relift.evaluate.errors import EvaluationError
from verl_relift.evaluate.questions import EvaluationQuestion
from verl_relift.evaluate.run import grade_and_store
from verl_relift.evaluate.store import Store, read_generations
from verl_relift.evaluate.tokens import encode_prompts, inspect_model, questions_in_thought
from verl_relift.quickstart.base_model import build_tokenizer
from verl_relift.rewards import Grader

QUESTION = EvaluationQuestion("k:0", "sums", ({"role": "user", "content": "7*2+3=?"},), "17")


def tokenizer(opened: str):
    made = build_tokenizer()
    made.chat_template += "{% if add_generation_prompt %}" + opened + "{% endif %}"
    return made


def in_thought(opened: str) -> frozenset[str]:
    made = tokenizer(opened)
    return questions_in_thought(made, [QUESTION], encode_prompts(made, [QUESTION]))


def test_prompts_that_open_a_thought():
    assert in_thought("<think>\n") == {"k:0"}
    assert in_thought("<think>\n\n</think>\n\n") == in_thought("") == frozenset()


def test_a_box_inside_the_prompts_thought_is_no_answer(tmp_path):
    texts = ("\\boxed{17}", "7*2+3</think>\\boxed{17}")
    store = Store(tmp_path, {})
    completions = [Completion("k:0", sample, text, 5, False) for sample, text in enumerate(texts)]
    with Grader() as grader:
        grade_and_store(completions, [QUESTION], grader, store, in_thought("<think>\n"))
    store.finish()
    assert [graded.outcome for graded in read_generations(tmp_path)] == ["no_answer", "correct"]


def test_a_folder_of_a_run_is_answered_with_the_model_of_its_last_checkpoint(tmp_path):
    with pytest.raises(EvaluationError, match=r"no config\.json; --model takes a Hugging Face model folder, such as"):
        inspect_model(tmp_path)
    for step in (9, 10, 11):
        (tmp_path / f"global_step_{step}" / "actor" / "model" / "huggingface").mkdir(parents=True)
    for step in (9, 10):
        (tmp_path / f"global_step_{step}" / "actor" / "model" / "huggingface" / "config.json").touch()
    for folder in (tmp_path, tmp_path / "global_step_10"):
        with pytest.raises(EvaluationError, match=r"--model takes .*/global_step_10/actor/model/huggingface, or .*exp"):
            inspect_model(folder)
