"""Answers in solutions: finding the boxed answer, and spelling a demonstration."""

import re

_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")


def last_boxed(text: str) -> str | None:
    r"""Return the content of the last complete `\boxed{...}`, with matching braces; None if there is none."""
    for match in reversed(list(_BOXED.finditer(text))):
        depth, i = 1, match.end()
        while i < len(text) and depth:
            if text[i] == "\\":
                i += 1  # an escaped brace does not count
            elif text[i] in "{}":
                depth += 1 if text[i] == "{" else -1
            i += 1
        if depth == 0:
            return text[match.end() : i - 1].strip()
    return None


def final_answer(text: str) -> str:
    r"""Return the answer that a text marks with `\boxed{}` or after `####`; the text itself if it marks none."""
    marked = last_boxed(text)
    if marked is None and "####" in text:
        marked = text.rpartition("####")[2].strip().partition("\n")[0].strip()
    return marked or text


def demonstration(solution: str, answer: str, think: bool) -> str:
    r"""Return a solution and its answer as the text of an assistant message.

    Args:
        solution: the worked solution.
        answer: the final answer.
        think: whether to write `<think>...\n</think>\boxed{N}`, the reasoning between tags and the answer after them.
            Otherwise the solution is kept, and the boxed answer is appended unless the solution already boxes one.
    """
    solution = solution.strip()
    if think:
        return f"<think>{solution}\n</think>\\boxed{{{answer}}}"
    return solution if last_boxed(solution) is not None else f"{solution}\n\\boxed{{{answer}}}"
