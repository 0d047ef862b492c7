"""Grade the answers of one file with the reward function of a configuration, as training does.

FILE is a parquet file with training data, whose demonstrations are graded, then some wrong answers, or a jsonl file
with answers: a run's validation/STEP.jsonl, an evaluation's generations.jsonl, or your own with the columns response
and ground_truth.
key=value: reward.custom_reward_function.path=FILE.py, method.demonstrations.column=NAME and the other keys that
training takes.
"""

import contextlib
import io
import itertools
import json
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .data.errors import DataError
from .data.fields import target_text
from .rewards.function import Answer, RewardFunction, Score
from .run.composition import compose_config
from .run.display import visible
from .run.environment import prepare_environment
from .schema import refusal
from .usage import argument_parser

# Names that a jsonl file may have for the same thing: ours, verl's validation's, this program's evaluation's.
_RESPONSES, _TRUTHS, _SOURCES = ("response", "output"), ("ground_truth", "gts"), ("data_source", "source")
_COLUMN = "target"  # of demonstrations, where the method has none
_WRONG = 20  # answers that are made to be wrong
_SHOWN = 60  # characters of the end of an answer


class GradeError(ValueError):
    """The file or the configuration can't be used; the message is one line."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command.

    Raises:
        SystemExit: with status 1 if the function failed on an answer, with 2 if an argument can't be used.
    """
    parser = argument_parser("verl_relift.grade", __doc__, "FILE [key=value ...]")
    parser.add_argument("file", type=Path, metavar="FILE", help="parquet or jsonl")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of the training configuration")
    parser.add_argument("--limit", type=int, default=1000, metavar="N", help="answers to grade (default 1000)")
    parser.add_argument("--show", type=int, default=10, metavar="N", help="answers to print (default 10)")
    options = parser.parse_intermixed_args(arguments)
    try:
        config = _config(options.overrides)
        column = OmegaConf.select(config, "method.demonstrations.column") or _COLUMN
        answers = list(itertools.islice(read_answers(options.file, column), options.limit))
        function = _function(config)
        failed = _print(answers, function, options.show)
        if options.file.suffix == ".parquet":
            print(f"{_without_demonstration(options.file, column)} rows of the file have no demonstration")
            failed += _print_wrong(answers, function)
    except (GradeError, DataError) as error:
        print(f"grade: {error}", file=sys.stderr)
        sys.exit(2)
    sys.exit(1 if failed else 0)


def read_answers(file: Path, column: str) -> Iterator[Answer]:
    """Yield the answers of a file.

    Args:
        file: parquet or jsonl.
        column: of a parquet file's demonstrations.

    Raises:
        GradeError: it can't be read, or lacks a column.
    """
    try:
        if file.suffix == ".parquet":
            yield from _demonstrations(file, column)
        else:
            with open(file, encoding="utf-8") as lines:
                yield from (_answer(json.loads(line), f"{file}:{number}") for number, line in enumerate(lines, 1))
    except (OSError, ValueError) as error:
        if isinstance(error, GradeError):
            raise
        raise GradeError(f"{file}: {str(error).splitlines()[0]}; give a parquet or jsonl file") from error


def _demonstrations(file: Path, column: str) -> Iterator[Answer]:
    import pyarrow.parquet as pq

    found = False
    for batch in pq.ParquetFile(file).iter_batches(1000):
        for row in batch.to_pylist():
            text = target_text(row.get(column))
            if text is not None:
                found = True
                yield Answer(text, row["reward_model"]["ground_truth"], row["data_source"], row.get("extra_info"))
    if not found:
        raise GradeError(
            f"{file}: no row has a demonstration in the column {column} (method.demonstrations.column); "
            "or give a jsonl file with answers"
        )


def _without_demonstration(file: Path, column: str) -> int:
    import pyarrow.parquet as pq

    batches = pq.ParquetFile(file).iter_batches(1000, columns=[column])
    return sum(target_text(row[column]) is None for batch in batches for row in batch.to_pylist())


def _answer(row: Mapping[str, Any], place: str) -> Answer:
    def first(names: Sequence[str], default: Any = None) -> Any:
        found = [row[name] for name in names if name in row]
        if not found and default is None:
            raise GradeError(f"{place}: no column {' or '.join(names)}; there are {', '.join(row)}")
        return found[0] if found else default

    return Answer(first(_RESPONSES), first(_TRUTHS), first(_SOURCES, ""), row.get("extra_info"))


def _config(overrides: Sequence[str]) -> DictConfig:
    prepare_environment()
    try:
        return compose_config("relift", None, overrides, "cpu")
    except (HydraException, OmegaConfBaseException) as error:
        raise GradeError(refusal(error, overrides, "cpu")) from error


def _function(config: DictConfig) -> RewardFunction:
    # verl, which is imported here, has much to say.
    warnings.simplefilter("ignore")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        from .rollout.reward import load_reward_function, reward_function_problems

        for problem in reward_function_problems(config):
            raise GradeError(problem)
        return load_reward_function(config)


def _print(answers: Sequence[Answer], function: RewardFunction, show: int) -> int:
    """Grade and print a table.

    Returns:
        The number of answers on which the function failed.
    """
    scores: list[Score] = []
    failed = 0
    print(f"{'reward':>7} {'acc':>5}  {'ground truth':<16} the answer's end")
    for number, answer in enumerate(answers):
        end = " ".join(answer.text.split())[-_SHOWN:]
        truth = str(answer.ground_truth)[:16]
        try:
            [score] = function.score_all([answer])
        except Exception as error:  # a function of the user's may raise anything
            failed += 1
            shown = f"{'failed':>13}  {truth:<16} {end}\n{'':>15}{type(error).__name__}: {error}"
        else:
            scores.append(score)
            shown = f"{score.reward:7.3f} {score.accuracy:5.2f}  {truth:<16} {end}"
        if number < show or (len(scores) < number + 1 and failed <= show):
            print(visible(shown))
    if scores:
        print(f"{len(scores)} graded: mean reward {fmean(s.reward for s in scores):.3f}, {_verdicts(scores)}")
    if failed:
        print(f"the function failed on {failed} of {len(answers)} answers; correct it")
    return failed


def _verdicts(scores: Sequence[Score]) -> str:
    right, wrong = sum(score.right for score in scores), sum(score.accuracy <= 0.0 for score in scores)
    return f"{right} right, {len(scores) - right - wrong} partial, {wrong} wrong"


def _print_wrong(answers: Sequence[Answer], function: RewardFunction) -> int:
    """Grade answers that are wrong, which demonstrations never are, and print what they earn.

    Returns:
        1 if the function failed on one, or returned a reward that does not say whether it is right; otherwise 0.
    """
    pairs = zip(answers, [*answers[1:], *answers[:1]], strict=True)
    others = [replace(one, text=other.text) for one, other in pairs if one.ground_truth != other.ground_truth]
    wrong = [replace(answers[0], text=""), *others[:_WRONG]]
    what = f"{len(wrong)} wrong answers (an empty one, and demonstrations of other questions)"
    try:
        scores = function.score_all(wrong)
    except Exception as error:  # a function of the user's may raise anything
        print(visible(f"{what}: {error}"))
        return 1
    print(f"{what}: mean reward {fmean(s.reward for s in scores):.3f}, {_verdicts(scores)}")
    return 0


if __name__ == "__main__":
    main()
