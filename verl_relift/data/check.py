"""Whether parquet files are fit to train on: every finding, with its file and row."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from pathlib import Path

from .filters import question_key
from .findings import TRAINING_COPES, FileSummary, Finding, Kind, Report
from .inspection import Checks, Question, inspect
from .overlap import DEFAULT_N, NGramIndex
from .tokens import TokenCounter

TOKEN_SAMPLE = 1000  # rows; tokenizing takes a hundred times as long as everything else


def check_files(
    train_files: Sequence[str],
    val_files: Sequence[str] = (),
    *,
    tokenizer: str | TokenCounter | None = None,
    max_prompt_tokens: int | None = None,
    max_target_tokens: int | None = None,
    demonstrations: bool = True,
    verify: bool = True,
    sample: int | None = None,
    token_sample: int | None = TOKEN_SAMPLE,
    ngram: int = DEFAULT_N,
    allowed: Collection[Kind] = TRAINING_COPES,
    progress: bool = False,
) -> Report:
    """Check training and validation files together.

    Args:
        tokenizer: a folder, a hub id or a counter; without one lengths are characters and the two limits don't apply.
        demonstrations: whether training needs a `target` in some rows.
        verify: grade demonstrations and try ground truths.
        sample: grade and measure only so many rows a file, evenly spaced; None for all. The rest reads every row.
        token_sample: tokenize only so many rows a file, evenly spaced; None for all. Prompts over the limit are found
            in every row, targets over it in these.
        ngram: words in a row that make two questions overlap.
        allowed: kinds of fault that are warnings. By default those that training copes with.

    Returns:
        the report; `report.ok` says whether the files are fit, `report.errors` what is wrong and where.

    Raises:
        DataError: the tokenizer cannot be loaded.
    """
    start = time.monotonic()
    counter = TokenCounter.load(tokenizer) if isinstance(tokenizer, str) else tokenizer
    checks = Checks(
        counter, max_prompt_tokens, max_target_tokens, demonstrations, verify, sample, token_sample, progress
    )
    report = Report(frozenset(allowed))
    questions: dict[str, list[Question]] = {}
    for file in dict.fromkeys([*val_files, *train_files]):
        summary = FileSummary(str(file), validation=file in val_files or _named_validation(str(file)))
        report.files.append(summary)
        questions[summary.file] = inspect(summary, checks, report, collect=True)
    _overlap(report, questions, ngram)
    report.seconds = time.monotonic() - start
    return report


def _named_validation(file: str) -> bool:
    words = Path(file).stem.lower().replace("-", "_").replace(".", "_").split("_")
    return any(word in ("test", "val", "valid", "validation", "eval") for word in words)


def _overlap(report: Report, questions: dict[str, list[Question]], ngram: int) -> None:
    """Training questions that a validation file has too: the same but for case and white space, or sharing word
    n-grams.
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
