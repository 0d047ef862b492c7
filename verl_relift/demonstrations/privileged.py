"""Solutions in the policy's own words: it writes them while it sees the data set's, and is trained without it.

    question + solution -> rollouts -> right ones, no two alike -> demonstrations of the bare question

Rejection-sampled fine-tuning on self-written solutions: arXiv 2603.01223 (ReGFT) does it before RL, and it is what
remains of arXiv 2603.23871 (HDPO) where its divergence is -log p of the sampled token.
"""

from collections.abc import Sequence

from ..settings import PrivilegedSettings
from ..types import Group, Prompt, Question
from .buffer import Demonstration
from .guidance import as_text, head, with_hint
from .verify import Tokenizer


def privileged_prompt(
    question: Question, solution: Sequence[int], settings: PrivilegedSettings, tokenizer: Tokenizer
) -> Prompt:
    """Return a question that shows its solution, to be answered for the method alone.

    Args:
        question: the bare question.
        solution: token ids of its verified solution.
    """
    shown = as_text(head(solution, settings.fraction), tokenizer)
    messages = with_hint(question.messages, settings.template, shown)
    return Prompt(question, messages, samples=settings.samples, aside=True)


def traces(
    group: Group, prompt_ids: tuple[int, ...], settings: PrivilegedSettings, max_tokens: int, step: int
) -> list[Demonstration]:
    """Return the right, complete answers of a group as demonstrations of the bare question, no two alike.

    Args:
        group: graded, with token ids.
        prompt_ids: of the bare question.
        max_tokens: longest demonstration; longer ones are left out.
        step: the training step.
    """
    right = [r for r in group.rollouts if r.accuracy >= 1.0 and not r.truncated and r.tokens <= max_tokens]
    different = dict.fromkeys(tuple(rollout.token_ids.tolist()) for rollout in right)
    return [Demonstration(group.question.id, prompt_ids, ids, step) for ids in list(different)[: settings.traces]]
