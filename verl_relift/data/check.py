"""`check_files`: every reason why parquet files are not fit to train on, with its file and row."""

import os
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from . import schemas
from .filters import question_key
from .findings import TRAINING_COPES, WARNINGS, FileSummary, Finding, Kind, Report
from .inspection import Checks, PromptText, inspect
from .overlap import DEFAULT_N, NGramIndex
from .tokens import TokenCounter

TOKEN_SAMPLE = 1000  # rows; tokenizing takes a hundred times as long as all other checks


def check_files(
    train_files: Sequence[str],
    val_files: Sequence[str] = (),
    *,
    tokenizer: str | TokenCounter | None = None,
    max_prompt_tokens: int | None = None,
    max_target_tokens: int | None = None,
    demonstrations: bool = True,
    column: str = "target",
    verify: bool = True,
    mathematics: bool = True,
    sample: int | None = None,
    token_sample: int | None = TOKEN_SAMPLE,
    ngram: int = DEFAULT_N,
    allowed: Collection[Kind] = TRAINING_COPES,
    guess_validation: bool = True,
    progress: bool = False,
) -> Report:
    """Check training and validation files together.

    Args:
        train_files, val_files: paths of parquet files.
        tokenizer: a folder, a hub id or a counter. Without one, lengths are characters and the two limits do not apply.
        max_prompt_tokens: longer prompts are faults; None for no limit.
        max_target_tokens: longer demonstrations are faults; None for no limit.
        demonstrations: whether training needs a demonstration in some rows.
        column: the column with the demonstrations.
        verify: whether to grade demonstrations and try ground truths.
        mathematics: whether ground truths are for this project's grader. Another reward function takes any value, so
            that demonstrations cannot be graded and ground truths cannot be tried here.
        sample: number of rows of a file to grade and measure, evenly spaced; None for all. All other checks read every
            row.
        token_sample: number of rows of a file to tokenize, evenly spaced; None for all. Prompts over the limit are
            found in every row, targets over the limit only in these rows.
        ngram: number of consecutive words that two overlapping questions share.
        allowed: kinds of faults that are only warnings; two kinds that concern only validation always are. The default
            kinds are those that training handles.
        guess_validation: whether a training file whose name or first row says test, val or eval counts as validation.
        progress: whether to show progress bars on stderr.

    Returns:
        The report: `report.ok` says whether the files are fit, and `report.errors` says what is wrong and where.

    Raises:
        DataError: the tokenizer cannot be loaded.
    """
    start = time.monotonic()
    counter = TokenCounter.load(tokenizer) if isinstance(tokenizer, str) else tokenizer
    limits, graded = (counter, max_prompt_tokens, max_target_tokens), verify and mathematics
    samples = sample, token_sample
    checks = Checks(*limits, demonstrations, column, graded, mathematics, *samples, guess_validation, progress)
    report = Report(frozenset(allowed) | WARNINGS)
    questions: dict[str, list[PromptText]] = {}
    for summary in _summaries(train_files, val_files, report, guess_validation):
        questions[summary.file] = inspect(summary, checks, report, collect=True)
    schemas.compare(report)
    _none_left(report, max_prompt_tokens)
    _overlap(report, questions, ngram)
    report.seconds = time.monotonic() - start
    return report


def _summaries(
    train_files: Sequence[str], val_files: Sequence[str], report: Report, guess: bool
) -> Iterator[FileSummary]:
    """Yield a summary of each file, which is in the report too, and report files of both purposes."""
    both = {file for file in train_files if any(_same_file(file, other) for other in val_files)}
    for file in dict.fromkeys([*val_files, *train_files]):
        validation = file not in train_files or (guess and file not in both and _named_validation(str(file)))
        summary = FileSummary(str(file), validation=validation)
        report.files.append(summary)
        if file in both:
            problem = "the same file is for training and for validation"
            report.add(summary, Finding(Kind.OVERLAP, problem, summary.file))
        yield summary


def _same_file(one: str, other: str) -> bool:
    return one == other or (os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other))


def _none_left(report: Report, max_prompt_tokens: int | None) -> None:
    """Report files whose every prompt is over the limit."""
    for summary in report.files:
        if 0 < summary.rows == summary.counts[Kind.PROMPT_TOO_LONG]:
            problem = f"all {summary.rows:,} prompts are longer than {max_prompt_tokens} tokens"
            report.add(summary, Finding(Kind.ONLY_LONG_PROMPTS, problem, summary.file, column="prompt"))


def _named_validation(file: str) -> bool:
    words = Path(file).stem.lower().replace("-", "_").replace(".", "_").split("_")
    return any(word in ("test", "val", "valid", "validation", "eval") for word in words)


def _overlap(report: Report, questions: dict[str, list[PromptText]], ngram: int) -> None:
    """Report training questions that a validation file contains too.

    Two questions overlap if they differ only in case and white space, or if they share a word n-gram.
    """
    index = NGramIndex(ngram)
    exact: dict[bytes, str] = {}
    for summary in report.files:
        if summary.validation:
            found = questions[summary.file]
            index.add(summary.file, (question.text for question in found))
            for question in found:
                exact.setdefault(question_key(question.text), f"row {question.row} of {summary.file}")
    for summary in report.files:
        for question in questions[summary.file] if exact and not summary.validation else ():
            same = exact.get(question_key(question.text))
            if same is not None:
                problem = f"the same question as {same}"
            elif (file := index.overlap(question.text)) is not None:
                problem = f"shares {ngram} words in a row with a question of {file}"
            else:
                continue
            report.add(summary, Finding(Kind.OVERLAP, problem, summary.file, question.row, "prompt"))
