"""The checks of one parquet file, batch by batch. `check.py` compares files with each other."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from .background import read_ahead
from .chat import graded_text, opens_thought
from .errors import DataError, Reason
from .fields import question_chat, target_text
from .filters import question_key
from .findings import FileSummary, Finding, Kind, Report
from .formats import foreign_format, unasked_thought
from .sources import batches, one_row
from .tokens import TokenCounter

if TYPE_CHECKING:
    from ..rewards import Grade

GRADED_TOGETHER = 2000  # rows: enough to keep every worker process busy, few enough to hold in memory
REQUIRED = ("data_source", "prompt", "reward_model")
OPTIONAL = ("extra_info", "ability")
MEDIA = ("images", "videos", "audios")  # verl's columns of what a text model cannot read
# A prompt that holds a demonstration of this many characters holds the solution; a shorter one may be a word of it.
_SURELY_A_SOLUTION = 40
VALIDATION_SPLITS = ("test", "val", "valid", "validation", "eval")


_KINDS = {Reason.EMPTY_PROMPT: Kind.EMPTY_PROMPT, Reason.ANSWER_IN_PROMPT: Kind.ANSWER_IN_PROMPT}


@dataclass(frozen=True, slots=True)
class Checks:
    """What to check: the arguments of `check.check_files`."""

    counter: TokenCounter | None
    max_prompt_tokens: int | None
    max_target_tokens: int | None
    demonstrations: bool
    column: str
    verify: bool
    mathematics: bool
    sample: int | None
    token_sample: int | None
    guess_validation: bool
    progress: bool


@dataclass(frozen=True, slots=True)
class PromptText:
    """The question in a prompt and its row, for the comparison of files.

    Attributes:
        row: counted from 0.
        text: the last user message.
    """

    row: int
    text: str


@dataclass(slots=True)
class _Example:
    """A row without structural faults."""

    row: int
    prompt: list[tuple[str, str]]
    target: str | None
    ground_truth: Any


def inspect(summary: FileSummary, checks: Checks, report: Report, collect: bool) -> list[PromptText]:
    """Check one file.

    Args:
        summary: names the file and receives the counts and lengths.
        checks: what to check.
        report: receives the findings.
        collect: whether to return the questions.

    Returns:
        The file's questions if `collect` is set, else an empty list.
    """
    reader = _Inspector(summary, checks, report, collect)
    try:
        with pq.ParquetFile(summary.file, buffer_size=1 << 20, pre_buffer=False) as file:
            reader.read(file)
    except (OSError, pa.ArrowException) as error:
        reader.fault(Kind.UNREADABLE, f"cannot be read as parquet ({str(error).splitlines()[0]})")
    return reader.questions


class _Inspector:
    """The state of the checks of one file."""

    def __init__(self, summary: FileSummary, checks: Checks, report: Report, collect: bool):
        self.summary, self.checks, self.report, self.collect = summary, checks, report, collect
        self.questions: list[PromptText] = []
        self._seen: dict[bytes, int] = {}
        self._ids: dict[str, int] = {}
        self._waiting: list[_Example] = []
        self._grading: tuple[list[_Example], list[_Example], Future[list[Grade]]] | None = None
        self._answer_start = checks.counter.answer_start() if checks.counter else ""
        summary.unit = "tokens" if checks.counter else "characters"

    def fault(self, kind: Kind, problem: str, row: int | None = None, column: str | None = None) -> None:
        self.report.add(self.summary, Finding(kind, problem, self.summary.file, row, column))

    def read(self, file: pq.ParquetFile) -> None:
        summary = self.summary
        summary.rows = file.metadata.num_rows
        names = file.schema_arrow.names
        missing = [name for name in REQUIRED if name not in names]
        for name in missing:
            self.fault(Kind.MISSING_COLUMN, f"no such column (there are: {', '.join(names)})", column=name)
        if not summary.rows:
            self.fault(Kind.NO_ROWS, "the file has no rows")
        if missing or not summary.rows:
            return
        graded = _stride(summary.rows, self.checks.sample)
        measured = max(graded, _stride(summary.rows, self.checks.token_sample if self.checks.counter else None))
        columns = [name for name in (*REQUIRED, self.checks.column, *OPTIONAL, *MEDIA) if name in names]
        hidden = None if self.checks.progress else True
        bar = tqdm(desc=summary.file, total=summary.rows, unit=" rows", disable=hidden)
        with bar, ThreadPoolExecutor(1, thread_name_prefix="grade") as grader:
            row = 0
            for values in read_ahead(_values(file, columns)):
                examples = [self._structure(value, row + i) for i, value in enumerate(values)]
                self._formats([one for one in examples if one is not None and one.target is not None])
                self._lengths([one for one in examples if one is not None and one.row % measured == 0])
                self._long_prompts([one for one in examples if one is not None and one.row % measured != 0])
                if self.checks.verify:
                    self._waiting += [one for one in examples if one is not None and one.row % graded == 0]
                    if len(self._waiting) >= GRADED_TOGETHER:
                        self._grade_waiting(grader)
                row += len(values)
                bar.update(len(values))
            self._grade_waiting(grader)
            self._collect_grades()
        self._require_demonstrations(names)

    def _require_demonstrations(self, columns: Sequence[str]) -> None:
        """Report a training file without a demonstration that training would accept."""
        summary, column = self.summary, self.checks.column
        if not self.checks.demonstrations or summary.validation:
            return
        if not summary.demonstrations:
            blank, there = "every target is null or blank", f"no such column (there are: {', '.join(columns)})"
            problem = blank if column in columns else there
            self.fault(Kind.NO_DEMONSTRATIONS, problem, column=column)
        elif summary.graded and not summary.verified:
            problem = f"none of {summary.graded} graded demonstrations gives the ground truth as its answer"
            if opens_thought(self._answer_start):
                problem += " (the chat template opens a thought, which they must close before they answer)"
            self.fault(Kind.NO_RIGHT_DEMONSTRATION, problem, column=column)

    def _structure(self, value: dict[str, Any] | DataError, row: int) -> _Example | None:
        """Check types, emptiness and duplicates of one row."""
        if isinstance(value, DataError):
            self.fault(Kind.WRONG_TYPE, value.problem, row, value.column)
            return None
        self._labels(value, row)
        prompt = self._prompt(value["prompt"], row)
        truth = self._ground_truth(value["reward_model"], row)
        try:
            target = target_text(value.get(self.checks.column))
        except DataError as error:
            self.fault(Kind.WRONG_TYPE, error.problem, row, self.checks.column)
            target = None
        self.summary.demonstrations += target is not None
        if target is not None and len(target) >= _SURELY_A_SOLUTION and any(target in text for _, text in prompt or ()):
            self.fault(Kind.ANSWER_IN_PROMPT, "the prompt contains the whole demonstration", row, "prompt")
        return None if prompt is None or truth is None else _Example(row, prompt, target, truth)

    def _labels(self, value: dict[str, Any], row: int) -> None:
        source = value["data_source"]
        if isinstance(source, str):
            self.summary.sources[source] += 1
        else:
            self.fault(Kind.WRONG_TYPE, f"{_type(source)}, not text", row, "data_source")
        for name in MEDIA:
            if value.get(name):
                self.fault(Kind.MEDIA, "not empty", row, name)
        extra = value.get("extra_info")
        if extra is not None and not isinstance(extra, dict):
            self.fault(Kind.WRONG_TYPE, f"{_type(extra)}, not a structure with index and split", row, "extra_info")
        if not isinstance(extra, dict):
            return
        if row == 0 and self.checks.guess_validation and extra.get("split") in VALIDATION_SPLITS:
            self.summary.validation = True
        if isinstance(extra.get("level"), str):
            self.summary.levels[extra["level"]] += 1
        identifier = extra.get("id")
        if isinstance(identifier, str):
            first = self._ids.setdefault(identifier, row)
            if first != row:
                kind = Kind.REPEATED_VALIDATION_QUESTION if self.summary.validation else Kind.DUPLICATE_ID
                self.fault(kind, f"row {first} has {identifier!r} too", row, "extra_info.id")

    def _prompt(self, value: Any, row: int) -> list[tuple[str, str]] | None:
        if isinstance(value, str):
            self.fault(Kind.WRONG_TYPE, "text, not a list of messages", row, "prompt")
            return None
        try:
            messages = question_chat(value, "prompt")
        except DataError as error:
            self.fault(_KINDS.get(error.reason, Kind.WRONG_TYPE), error.problem, row, "prompt")
            return None
        question = next((content for role, content in reversed(messages) if role == "user"), "")
        if not question.strip():
            self.fault(Kind.EMPTY_PROMPT, "no user message with text", row, "prompt")
            return None
        first = self._seen.setdefault(question_key(question), row)
        if first != row:
            kind = Kind.REPEATED_VALIDATION_QUESTION if self.summary.validation else Kind.DUPLICATE_PROMPT
            self.fault(kind, f"the same question as row {first}", row, "prompt")
        if self.collect:
            self.questions.append(PromptText(row, question))
        return messages

    def _ground_truth(self, value: Any, row: int) -> Any:
        from ..rewards.ground_truth import alternatives

        if value is not None and not isinstance(value, dict):
            self.fault(Kind.WRONG_TYPE, f"{_type(value)}, not a structure with ground_truth", row, "reward_model")
            return None
        truth = value.get("ground_truth") if value is not None else None
        try:
            if alternatives(truth) if self.checks.mathematics else truth is not None:
                return truth
            self.fault(Kind.NO_GROUND_TRUTH, "null" if truth is None else "empty", row, "reward_model.ground_truth")
        except TypeError as error:
            self.fault(Kind.WRONG_TYPE, str(error), row, "reward_model.ground_truth")
        return None

    def _formats(self, examples: Sequence[_Example]) -> None:
        """Report demonstrations that are written in another format than what the policy is to write."""
        if self.summary.validation or self.checks.counter is None:
            return
        template = self.checks.counter.template
        for one in examples:
            messages = [content for _, content in one.prompt]
            if problem := foreign_format(one.target, messages, template, self._answer_start):
                self.fault(Kind.FOREIGN_FORMAT, problem, one.row, self.checks.column)
            elif problem := unasked_thought(one.target, messages, template):
                self.fault(Kind.UNASKED_THOUGHT, problem, one.row, self.checks.column)

    def _lengths(self, examples: Sequence[_Example]) -> None:
        counter, checks = self.checks.counter, self.checks
        if counter is None:
            prompts = [sum(len(content) for _, content in one.prompt) for one in examples]
            targets = [len(one.target or "") for one in examples]
        else:
            prompts = counter.prompts([one.prompt for one in examples])
            targets = counter.targets([one.target for one in examples])
        self.summary.prompts.extend(prompts)
        self.summary.targets.extend(
            length for one, length in zip(examples, targets, strict=True) if one.target is not None
        )
        for one, prompt, target in zip(examples, prompts, targets, strict=True):
            if checks.max_prompt_tokens is not None and prompt > checks.max_prompt_tokens:
                self.fault(
                    Kind.PROMPT_TOO_LONG, f"{prompt} tokens, limit {checks.max_prompt_tokens}", one.row, "prompt"
                )
            if checks.max_target_tokens is not None and target > checks.max_target_tokens:
                self.fault(
                    Kind.TARGET_TOO_LONG, f"{target} tokens, limit {checks.max_target_tokens}", one.row, checks.column
                )

    def _long_prompts(self, examples: Sequence[_Example]) -> None:
        """Report prompts over the limit among the rows whose lengths are not measured."""
        limit = self.checks.max_prompt_tokens
        if self.checks.counter is None or limit is None:
            return
        for i, count in self.checks.counter.prompts_over([one.prompt for one in examples], limit).items():
            self.fault(Kind.PROMPT_TOO_LONG, f"{count} tokens, limit {limit}", examples[i].row, "prompt")

    def _grade_waiting(self, grader: ThreadPoolExecutor) -> None:
        """Start grading the waiting rows: the worker processes grade them while the file is read further."""
        from ..rewards import grade_many

        self._collect_grades()
        answered = [one for one in self._waiting if one.target is not None]
        others = [one for one in self._waiting if one.target is None]
        self._waiting = []
        pairs = [(graded_text(one.target, self._answer_start), one.ground_truth) for one in answered]
        self._grading = (answered, others, grader.submit(grade_many, pairs))

    def _collect_grades(self) -> None:
        """Report failed demonstrations, and unreadable ground truths that no correct demonstration confirms."""
        from ..rewards import GradeOutcome, unanswerable_ground_truths, unparsable_ground_truths

        if self._grading is None:
            return
        (answered, untried, grades), self._grading = self._grading, None
        self.summary.graded += len(answered)
        for one, grade in zip(answered, grades.result(), strict=True):
            if grade.correct:
                self.summary.verified += 1
                continue
            untried.append(one)
            if grade.outcome != GradeOutcome.GROUND_TRUTH_UNPARSABLE:
                read = "" if grade.extracted is None else f", it answers {grade.extracted[:60]!r}"
                problem = f"graded {grade.outcome} against {str(one.ground_truth)[:60]!r}{read}"
                self.fault(Kind.FAILED_DEMONSTRATION, problem, one.row, self.checks.column)
        unparsable, unmatched = Kind.UNPARSABLE_GROUND_TRUTH, Kind.UNANSWERABLE_GROUND_TRUTH
        if self.summary.validation:
            unparsable = unmatched = Kind.UNPARSABLE_VALIDATION_ANSWER
        truths = [one.ground_truth for one in untried]
        unanswerable = set(unanswerable_ground_truths(truths))
        for i in sorted(unanswerable):
            problem = f"{str(truths[i])[:60]!r} cannot be the content of an answer's box"
            self.fault(unmatched, problem, untried[i].row, "reward_model.ground_truth")
        for i in unparsable_ground_truths(truths):
            if i not in unanswerable:
                problem = f"{str(truths[i])[:60]!r} is not a number, formula or option letter"
                self.fault(unparsable, problem, untried[i].row, "reward_model.ground_truth")


def _values(file: pq.ParquetFile, columns: Sequence[str]) -> Iterator[list[dict[str, Any] | DataError]]:
    for batch in batches(file, columns):
        try:
            yield batch.to_pylist()
        except UnicodeDecodeError:
            yield [one_row(batch, i) for i in range(batch.num_rows)]


def _stride(rows: int, sample: int | None) -> int:
    """Return the distance between sampled rows, for at most `sample` of `rows` rows."""
    return -(-rows // sample) if sample else 1


def _type(value: Any) -> str:
    return "null" if value is None else f"a {type(value).__name__}"
