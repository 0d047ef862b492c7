"""What a prompt has opened is known when its responses are graded."""

from verl_relift.evaluate.engine import Completion
from verl_relift.evaluate.questions import EvaluationQuestion
from verl_relift.evaluate.run import grade_and_store
from verl_relift.evaluate.store import Store, read_generations
from verl_relift.evaluate.tokens import encode_prompts, questions_in_thought
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
