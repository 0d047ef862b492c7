"""One call of a reward function of the user's before anything starts: a forgotten `return` shows at once."""

import re
import threading
from pathlib import Path

from .function import Answer, NoReward, RewardFunction, RewardFunctionFailed, UndefinedAccuracy

# Longer than that takes a judge behind a network, or a model that is loaded first.
_SECONDS = 10.0


def try_one(function: RewardFunction, answer: Answer) -> tuple[str | None, bool]:
    """Call a function of the user's once, unless it may need the run's Ray cluster: a call would start another.

    Args:
        function: what is called.
        answer: what it is asked about.

    Returns:
        What is wrong, if that is known; and whether every such call fails, which an exception leaves open.
    """
    if function.file is None or re.search(r"\bray\b", Path(function.file).read_text(errors="replace")):
        return None, False
    errors: list[BaseException] = []

    def call() -> None:
        try:
            function.score_all([answer])
        except BaseException as error:  # whatever a function of the user's raises, SystemExit included
            errors.append(error)

    thread = threading.Thread(target=call, name="reward trial", daemon=True)
    thread.start()
    thread.join(_SECONDS)
    if not errors:
        return None, False
    return _reason(errors[0]), isinstance(errors[0], NoReward | UndefinedAccuracy)


def _reason(error: BaseException) -> str:
    known = isinstance(error, RewardFunctionFailed | UndefinedAccuracy)
    text = " ".join(str(error).split())
    return text if known else f"the reward function raised {type(error).__name__}: {text}"
