"""Steps of a method without a trainer: groups as they come back graded, and what a method borrows."""

from pathlib import Path

from verl_relift.methods import Resources
from verl_relift.quickstart.base_model import build_tokenizer
from verl_relift.rewards.function import RewardFunction
from verl_relift.types import GradedRollout, Group, Prompt, Question

TOKENIZER = build_tokenizer()


def question(number: int, target: str | None = "right", draw: str | None = None) -> Question:
    """Question `number` asks for its own number; its solution is right, wrong or missing."""
    solution = {"right": f"\\boxed{{{number}}}", "wrong": "\\boxed{999}", None: None}[target]
    messages = ({"role": "user", "content": f"{number}=?"},)
    return Question(f"q{number}", draw or f"1-{number:06d}", messages, str(number), solution)


def group(asked: Question, *rewards: float, **info) -> Group:
    """A graded group."""
    rollouts = [
        GradedRollout(
            f"{asked.draw}_{k}_0", reward, info.get("acc", float(reward == 1.0)), {"score": reward, **info}, tokens=3
        )
        for k, reward in enumerate(rewards)
    ]
    return Group(Prompt.bare(asked), tuple(rollouts))


def resources(folder: Path, data_parallel_size: int = 1) -> Resources:
    return Resources(
        tokenizer=TOKENIZER,
        encode_prompt=lambda asked: tuple(TOKENIZER.encode(asked.messages[0]["content"])),
        seed=1,
        reward=RewardFunction(),
        data_parallel_size=data_parallel_size,
        folder=folder,
        available=100,
    )
