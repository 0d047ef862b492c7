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
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from . import schema
from .data.errors import DataError, Reason
from .data.fields import optional_text, target_text, text
from .rewards.function import Answer, RewardFunction, RewardFunctionFailed, Score, UndefinedAccuracy, shown
from .rewards.outcome import GradeOutcome
from .rewards.problems import has_own_function, reward_problems
from .run.composition import compose_config
from .run.display import visible
from .run.environment import prepare_environment
from .usage import argument_parser

# Names that a jsonl file may have for the same thing: ours, verl's validation's, this program's evaluation's.
_RESPONSES, _TRUTHS, _SOURCES = ("response", "output"), ("ground_truth", "gts"), ("data_source", "source")
_COLUMN = "target"  # of demonstrations, where the method has none
_WRONG = 20  # answers that are made to be wrong
_SHOWN = 60  # characters of the end of an answer
_REMEDY = "drop the row or fill it in"


class GradeError(ValueError):
    """The file or the configuration can't be used; the message is one line."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command.

    Raises:
        SystemExit: with status 1 if the function failed on an answer, found no demonstration right, or pays for answers
            that are made to be wrong; with 2 if an argument can't be used.
    """
    parser = argument_parser("verl_relift.grade", __doc__, "FILE [key=value ...]")
    parser.add_argument("file", type=Path, metavar="FILE", help="parquet or jsonl")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of the training configuration")
    parser.add_argument("--limit", type=int, default=1000, metavar="N", help="answers to grade (default 1000)")
    parser.add_argument("--show", type=int, default=10, metavar="N", help="answers to print (default 10)")
    options = parser.parse_intermixed_args(arguments)
    if options.limit < 1:
        parser.error(f"--limit {options.limit} must be at least 1")
    try:
        config = _config(options.overrides)
        column = OmegaConf.select(config, "method.demonstrations.column") or _COLUMN
        answers = list(itertools.islice(read_answers(options.file, column), options.limit))
        function = _function(config)
        print(visible(f"graded by {_grader(config)}"))
        scores = _print(answers, function, options.show)
        bad = len(scores) < len(answers)
        if options.file.suffix == ".parquet":
            bad |= _print_if_none_right(answers, scores)
            print(f"{_without_demonstration(options.file, column)} rows of the file have no demonstration")
            bad |= _print_wrong(answers, function)
    except (GradeError, DataError) as error:
        print(visible(f"grade: {' '.join(str(error).split())}"), file=sys.stderr)
        sys.exit(2)
    sys.exit(1 if bad else 0)


def read_answers(file: Path, column: str) -> Iterator[Answer]:
    """Yield the answers of a file.

    Args:
        file: parquet or jsonl.
        column: of a parquet file's demonstrations.

    Raises:
        GradeError: it can't be read, or lacks a column.
        DataError: a value has another type; the error names its row and column.
    """
    try:
        if file.suffix == ".parquet":
            yield from _demonstrations(file, column)
        else:
            with open(file, encoding="utf-8") as lines:
                yield from (_answer(json.loads(line), str(file), number) for number, line in enumerate(lines, 1))
    except (GradeError, DataError):
        raise
    except (OSError, ValueError) as error:
        raise GradeError(f"{file}: {str(error).splitlines()[0]}; give a parquet or jsonl file") from error


def _demonstrations(file: Path, column: str) -> Iterator[Answer]:
    import pyarrow.parquet as pq

    found = False
    batches = pq.ParquetFile(file).iter_batches(1000)
    for number, row in enumerate(itertools.chain.from_iterable(batch.to_pylist() for batch in batches)):
        try:
            answer = _demonstration(row, column)
        except DataError as error:
            raise error.at(str(file), number) from None
        if answer is not None:
            found = True
            yield answer
    if not found:
        raise GradeError(
            f"{file}: no row has a demonstration in the column {column} (method.demonstrations.column); "
            "or give a jsonl file with answers"
        )


def _demonstration(row: Mapping[str, Any], column: str) -> Answer | None:
    demonstration = _demonstration_text(row, column)
    if demonstration is None:
        return None
    reward_model = row.get("reward_model")
    truth = reward_model.get("ground_truth") if isinstance(reward_model, Mapping) else None
    return Answer(demonstration, _truth(truth, "reward_model.ground_truth"), text(row, "data_source"), _extra_info(row))


def _demonstration_text(row: Mapping[str, Any], column: str) -> str | None:
    try:
        return target_text(row.get(column))
    except DataError as error:  # it takes the column for the usual one
        raise DataError(error.reason, error.problem, column=column, remedy=error.remedy) from None


def _without_demonstration(file: Path, column: str) -> int:
    import pyarrow.parquet as pq

    without = 0
    batches = pq.ParquetFile(file).iter_batches(1000, columns=[column])
    for number, row in enumerate(itertools.chain.from_iterable(batch.to_pylist() for batch in batches)):
        try:
            without += _demonstration_text(row, column) is None
        except DataError as error:
            raise error.at(str(file), number) from None
    return without


def _answer(row: Any, file: str, number: int) -> Answer:
    def name_of(names: Sequence[str]) -> str:
        found = next((name for name in names if name in row), None)
        if found is None:
            raise GradeError(f"{file}:{number}: no column {' or '.join(names)}; there are {', '.join(row)}")
        return found

    if not isinstance(row, Mapping):
        remedy = 'write {"response": "...", "ground_truth": "..."}'
        raise DataError(Reason.WRONG_TYPE, f"{shown(row)}, not an object", file=file, row=number, remedy=remedy)
    response, truth = name_of(_RESPONSES), name_of(_TRUTHS)
    source = next((name for name in _SOURCES if name in row), _SOURCES[0])
    try:
        return Answer(
            text(row, response), _truth(row[truth], truth), optional_text(row, source) or "", _extra_info(row)
        )
    except DataError as error:
        raise error.at(file, number) from None


def _truth(value: Any, column: str) -> Any:
    if value is None:
        raise DataError(Reason.NO_GROUND_TRUTH, "null", column=column, remedy=_REMEDY)
    return value


def _extra_info(row: Mapping[str, Any]) -> Mapping[str, Any] | None:
    value = row.get("extra_info")
    if value is not None and not isinstance(value, Mapping):
        raise DataError(Reason.WRONG_TYPE, f"{shown(value)}, not an object", column="extra_info", remedy=_REMEDY)
    return value


def _config(overrides: Sequence[str]) -> DictConfig:
    prepare_environment()
    try:
        return compose_config("relift", None, overrides, "cpu")
    except (HydraException, OmegaConfBaseException) as error:
        raise GradeError(schema.refusal(error, overrides, "cpu")) from error


def _function(config: DictConfig) -> RewardFunction:
    # verl, which is imported here, has much to say.
    warnings.simplefilter("ignore")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        from .rollout.reward import load_reward_function, reward_function_problems

        # What training says of the same keys. The model and the machine are not asked about: grading needs neither.
        for problem in itertools.chain(
            schema.problems(config), reward_problems(config), reward_function_problems(config)
        ):
            raise GradeError(problem)
        try:
            return load_reward_function(config)
        except (Exception, SystemExit) as error:  # a class of the user's may raise anything
            named = config.reward.custom_reward_function
            why = f"{type(error).__name__}: {error}"
            raise GradeError(f"{named.name} of {named.path} cannot be made ({why}); correct it") from error


def _grader(config: DictConfig) -> str:
    named = config.reward.custom_reward_function
    if not has_own_function(config):
        return "the built-in grader"
    return f"{named.name} of {named.path}" if named.path else "verl's own function for each row's data_source"


def _print(answers: Sequence[Answer], function: RewardFunction, show: int) -> list[Score]:
    """Grade and print a table.

    Returns:
        The scores of the answers on which the function did not fail.
    """
    scores: list[Score] = []
    failures: list[str] = []
    print(f"{'reward':>7} {'acc':>5}  {'ground truth':<16} the answer's end")
    for number, answer in enumerate(answers):
        end = " ".join(answer.text.split())[-_SHOWN:]
        truth = str(answer.ground_truth)[:16]
        try:
            [score] = function.score_all([answer])
        except Exception as error:  # a function of the user's may raise anything
            failures.append(_reason(error))
            line, is_shown = f"{'failed':>13}  {truth:<16} {end}\n{'':>15}{failures[-1]}", len(failures) <= show
        else:
            scores.append(score)
            line, is_shown = f"{score.reward:7.3f} {score.accuracy:5.2f}  {truth:<16} {end}", False
        if is_shown or number < show:
            print(visible(line))
    if scores:
        print(f"{len(scores)} graded: mean reward {fmean(s.reward for s in scores):.3f}, {_verdicts(scores)}")
    if failures:
        first = "" if show > 0 else f" (the first: {failures[0]})"
        print(visible(f"the function failed on {len(failures)} of {len(answers)} answers{first}; correct it"))
    return scores


def _reason(error: Exception) -> str:
    """Return why a function failed, in a line."""
    kind = "" if isinstance(error, RewardFunctionFailed | UndefinedAccuracy) else f"{type(error).__name__}: "
    return kind + " ".join(str(error).split())


def _verdicts(scores: Sequence[Score]) -> str:
    right, wrong = sum(score.right for score in scores), sum(score.accuracy <= 0.0 for score in scores)
    rewarded = sum(score.accuracy <= 0.0 and score.reward > 0.0 for score in scores)
    of_them = f" ({rewarded} with a reward above 0)" if rewarded else ""
    return f"{right} right, {len(scores) - right - wrong} partial, {wrong} wrong{of_them}"


def _print_if_none_right(answers: Sequence[Answer], scores: Sequence[Score]) -> bool:
    """Say so if no demonstration is right, which no data set deserves. Returns whether that is the case."""
    if not scores or any(score.right for score in scores):
        return False
    outcomes = Counter(outcome for score in scores if isinstance(outcome := score.info.get("outcome"), str))
    why = ""
    if outcomes:
        [(outcome, count)] = outcomes.most_common(1)
        known = f": {GradeOutcome(outcome).sentence}" if outcome in set(GradeOutcome) else ""
        why = f" The usual outcome is {outcome} ({count} of {len(scores)}){known.rstrip('.')}."
    print(
        visible(
            f"no demonstration is right: correct the function or the data.{why} The function gets the whole "
            f"demonstration as solution_str, and as ground_truth what the file has, such as "
            f"{shown(answers[0].ground_truth)}"
        )
    )
    return True


def _print_wrong(answers: Sequence[Answer], function: RewardFunction) -> bool:
    """Grade answers that are wrong, which demonstrations never are, and print what they earn.

    Returns:
        Whether the function is of no use: it failed on one, or takes the empty one or all others for right. A few
        others may be right, because two ground truths can mean the same.
    """
    pairs = zip(answers, [*answers[1:], *answers[:1]], strict=True)
    others = [replace(one, text=other.text) for one, other in pairs if one.ground_truth != other.ground_truth]
    wrong = [replace(answers[0], text=""), *others[:_WRONG]]
    what = f"{len(wrong)} wrong answers (an empty one, and demonstrations of other questions)"
    try:
        scores = function.score_all(wrong)
    except Exception as error:  # a function of the user's may raise anything
        print(visible(f"{what}: {_reason(error)}"))
        return True
    print(f"{what}: mean reward {fmean(s.reward for s in scores):.3f}, {_verdicts(scores)}")
    paid = [answer for answer, score in zip(wrong, scores, strict=True) if score.right]
    if not paid:
        return False
    end = " ".join(paid[0].text.split())[-_SHOWN:]
    example = f"such as {end!r} for the ground truth {shown(paid[0].ground_truth)}"
    if scores[0].right or len(paid) == len(others[:_WRONG]):
        print(
            visible(
                f"answers that are wrong count as right, {example}: training would reward them; correct the function"
            )
        )
        return True
    print(visible(f"{len(paid)} of them count as right, {example}: correct the function, unless that answer is right"))
    return False


if __name__ == "__main__":
    main()
