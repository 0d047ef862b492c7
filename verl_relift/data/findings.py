"""The results of a check: `Kind` of fault, `Finding` (one fault and its place), `FileSummary` and `Report`."""

from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from ..run.display import visible
from .stats import length_summary

SHOWN = 5  # findings of one kind and file that the table shows
LISTED = 1000  # findings of one kind and file that `--json` lists with their place; all are counted


class Kind(StrEnum):
    """What can be wrong with a parquet file."""

    UNREADABLE = "unreadable"
    NO_ROWS = "no_rows"
    MISSING_COLUMN = "missing_column"
    WRONG_TYPE = "wrong_type"
    EMPTY_PROMPT = "empty_prompt"
    ANSWER_IN_PROMPT = "answer_in_prompt"
    MEDIA = "media"
    SCHEMAS_DIFFER = "schemas_differ"
    ONLY_LONG_PROMPTS = "only_long_prompts"
    NO_GROUND_TRUTH = "no_ground_truth"
    UNPARSABLE_GROUND_TRUTH = "unparsable_ground_truth"
    UNANSWERABLE_GROUND_TRUTH = "unanswerable_ground_truth"
    UNPARSABLE_VALIDATION_ANSWER = "unparsable_validation_answer"
    REPEATED_VALIDATION_QUESTION = "repeated_validation_question"
    NO_DEMONSTRATIONS = "no_demonstrations"
    NO_RIGHT_DEMONSTRATION = "no_right_demonstration"
    DUPLICATE_PROMPT = "duplicate_prompt"
    DUPLICATE_ID = "duplicate_id"
    FAILED_DEMONSTRATION = "failed_demonstration"
    FOREIGN_FORMAT = "foreign_format"
    UNASKED_THOUGHT = "unasked_thought"
    PROMPT_TOO_LONG = "prompt_too_long"
    TARGET_TOO_LONG = "target_too_long"
    OVERLAP = "overlap"

    @property
    def remedy(self) -> str:
        """How to fix the fault."""
        return _REMEDIES[self]


# A reward function of the user's that training or the check was not told of makes good data look bad.
_OWN = (
    "for a reward function of your own, give training reward.custom_reward_function.path=FILE and "
    "data_preprocess.check --own-reward (docs/own-reward.md)"
)
_REMEDIES = {
    Kind.UNREADABLE: "copy it again, or make it with data_preprocess.jsonl, which reads jsonl, json, csv and parquet",
    Kind.NO_ROWS: "make the file again with fewer filters",
    Kind.MISSING_COLUMN: "make the file with data_preprocess.jsonl, which maps columns (docs/own-data.md)",
    Kind.WRONG_TYPE: "make the file with data_preprocess.jsonl, which maps columns",
    Kind.EMPTY_PROMPT: "drop the row or fill it in",
    Kind.ANSWER_IN_PROMPT: "end the prompt with the question, and put the solution into the column of demonstrations",
    Kind.MEDIA: "training reads text only: drop the column",
    Kind.SCHEMAS_DIFFER: "make the files again by one command, or cast the column",
    Kind.ONLY_LONG_PROMPTS: "raise the limit (data.max_prompt_length), or make the file again with shorter prompts",
    Kind.NO_GROUND_TRUTH: "drop the row or fill it in",
    Kind.UNPARSABLE_GROUND_TRUTH: f"drop the row, or write the answer as a number, LaTeX or an option letter; {_OWN}",
    Kind.UNANSWERABLE_GROUND_TRUTH: f"no answer can match it, not even the same text: drop or correct the row; {_OWN}",
    Kind.REPEATED_VALIDATION_QUESTION: "each copy is sampled; evaluation counts them as one question",
    Kind.UNPARSABLE_VALIDATION_ANSWER: "drop the row, or accept that only an answer with the same text is correct",
    Kind.NO_DEMONSTRATIONS: (
        "the method needs a target in some rows: make the file again with --target-column, name their column "
        "(method.demonstrations.column), or use a teacher"
    ),
    Kind.NO_RIGHT_DEMONSTRATION: f"correct the solutions or their answers, or use a teacher; {_OWN}",
    Kind.DUPLICATE_PROMPT: "make the file again with --dedup",
    Kind.DUPLICATE_ID: "make identifiers unique",
    Kind.FAILED_DEMONSTRATION: (
        "make the file again with --verify; for a reward function of your own, give --own-reward, and grade them with "
        "verl_relift.grade"
    ),
    Kind.FOREIGN_FORMAT: "write the demonstration as the model is to answer, or use a chat template that fits",
    Kind.UNASKED_THOUGHT: "let the prompt or the chat template ask for it, or accept that training teaches it",
    Kind.PROMPT_TOO_LONG: "make the file again with --max-prompt-tokens, or raise the limit (data.max_prompt_length)",
    Kind.TARGET_TOO_LONG: "make the file again with --max-target-tokens, or raise the limit",
    Kind.OVERLAP: "make the training file again with --decontaminate and the validation file",
}

# What is found only with a tokenizer.
NEED_TOKENIZER = frozenset({Kind.PROMPT_TOO_LONG, Kind.ONLY_LONG_PROMPTS, Kind.FOREIGN_FORMAT})

# What makes no validation file unfit: it measures, and nothing is learned from it.
WARNINGS = frozenset({Kind.UNPARSABLE_VALIDATION_ANSWER, Kind.REPEATED_VALIDATION_QUESTION})

# Faults that training handles: verl leaves out long prompts, and duplicate, failed and long demonstrations are dropped.
TRAINING_COPES = frozenset(
    {
        *WARNINGS,
        Kind.DUPLICATE_PROMPT,
        Kind.DUPLICATE_ID,
        Kind.FAILED_DEMONSTRATION,
        Kind.UNASKED_THOUGHT,
        Kind.PROMPT_TOO_LONG,
        Kind.TARGET_TOO_LONG,
        Kind.OVERLAP,
    }
)


# Faults of a training file that others of the run make up for.
OF_ALL_FILES = frozenset({Kind.NO_DEMONSTRATIONS, Kind.NO_RIGHT_DEMONSTRATION})


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault and its place.

    Attributes:
        kind: the kind of fault.
        problem: what is wrong, in words.
        file: the path of the file.
        row: counted from 0; None if the fault concerns the whole file.
        column: None if the fault concerns the whole row or file.
    """

    kind: Kind
    problem: str
    file: str
    row: int | None = None
    column: str | None = None

    def __str__(self) -> str:
        place = [
            self.file,
            f"row {self.row}" if self.row is not None else "",
            f"column {self.column}" if self.column else "",
        ]
        return f"{', '.join(part for part in place if part)}: {self.problem}; {self.kind.remedy}"


@dataclass(slots=True)
class FileSummary:
    """Counts and lengths of one file.

    Attributes:
        file: the path of the file.
        validation: whether this is a validation file, which needs no demonstrations.
        rows: number of rows.
        demonstrations: rows with a target.
        graded: demonstrations that were graded.
        verified: demonstrations that were graded correct.
        unit: unit of the lengths, "tokens" or "characters".
        counts: faults by kind.
        sources: rows by `data_source`.
        levels: rows by `extra_info.level`.
        prompts: lengths of the measured prompts, in `unit`.
        targets: lengths of the measured targets, in `unit`.
    """

    file: str
    validation: bool = False
    rows: int = 0
    demonstrations: int = 0
    graded: int = 0
    verified: int = 0
    unit: str = "characters"
    counts: Counter[Kind] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    levels: Counter[str] = field(default_factory=Counter)
    prompts: array = field(default_factory=lambda: array("q"))
    targets: array = field(default_factory=lambda: array("q"))

    def as_dict(self) -> dict[str, Any]:
        """Return JSON types, for `--json`."""
        return {
            "file": self.file,
            "validation": self.validation,
            "rows": self.rows,
            "demonstrations": self.demonstrations,
            "graded": self.graded,
            "verified": self.verified,
            "measured": len(self.prompts),
            "faults": {kind.value: count for kind, count in sorted(self.counts.items())},
            "data_sources": dict(sorted(self.sources.items())),
            "levels": dict(sorted(self.levels.items())),
            "length_unit": self.unit,
            "prompt_length": length_summary(self.prompts),
            "target_length": length_summary(self.targets),
        }


@dataclass(slots=True)
class Report:
    """The result of a check.

    Attributes:
        allowed: kinds of faults that are warnings; the others are errors.
        files: one summary per file.
        findings: the listed faults, at most `LISTED` of one kind and file.
        seconds: wall-clock time of the check.
    """

    allowed: frozenset[Kind]
    files: list[FileSummary] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def errors(self) -> list[Finding]:
        """Findings that make the files unfit."""
        return [finding for finding in self.findings if finding.kind not in self.allowed]

    @property
    def warnings(self) -> list[Finding]:
        """Findings of an allowed kind."""
        return [finding for finding in self.findings if finding.kind in self.allowed]

    @property
    def ok(self) -> bool:
        """Whether the files are fit for their purpose."""
        return not self.errors

    def add(self, summary: FileSummary, finding: Finding) -> None:
        """Count a fault, and list it unless `LISTED` faults of its kind and file are listed already."""
        summary.counts[finding.kind] += 1
        if summary.counts[finding.kind] <= LISTED:
            self.findings.append(finding)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON types, for `--json`."""
        return {
            "ok": self.ok,
            "files": [summary.as_dict() for summary in self.files],
            "errors": [_as_dict(finding) for finding in self.errors],
            "warnings": [_as_dict(finding) for finding in self.warnings],
            "seconds": round(self.seconds, 2),
        }

    def table(self, details: bool = False) -> str:
        """Format the report as text: one line a file, then the faults by kind.

        Args:
            details: whether to add counts by source and level.
        """
        lines = [f"{'rows':>9} {'target':>9} {'verified':>9}  {'prompt':>21} {'target length':>21}  file"]
        for summary in self.files:
            prompt, target = _lengths(summary.prompts), _lengths(summary.targets)
            numbers = f"{summary.rows:>9,} {summary.demonstrations:>9,} {summary.verified:>9,}"
            role = "validation" if summary.validation else "train"
            lines.append(f"{numbers}  {prompt:>21} {target:>21}  {summary.file} ({role})")
        units = {summary.unit for summary in self.files}
        lines.append(f"lengths in {' and '.join(sorted(units)) or 'characters'}: median/95%/maximum")
        for summary in self.files:
            if details:
                lines += _counts(summary)
            lines += [*self._partial(summary), *self._faults(summary)]
        errors, warnings = (
            sum(s.counts[k] for s in self.files for k in Kind if (k in self.allowed) == w) for w in (False, True)
        )
        purpose = "evaluate" if all(summary.validation for summary in self.files) else "train"
        verdict = f"{'' if self.ok else 'NOT '}fit to {purpose} on"
        lines.append(f"{verdict}: {errors:,} errors, {warnings:,} warnings, {self.seconds:.1f} s")
        return visible("\n".join(lines))

    def _partial(self, summary: FileSummary) -> Iterable[str]:
        """Yield what was done for some rows only."""
        if 0 < len(summary.prompts) < summary.rows:
            yield f"{summary.file}: lengths are those of {len(summary.prompts):,} rows, evenly spaced"
        if 0 < summary.graded < summary.demonstrations:
            yield f"{summary.file}: {summary.graded:,} of the demonstrations were graded, evenly spaced"

    def _faults(self, summary: FileSummary) -> Iterable[str]:
        for kind, count in sorted(summary.counts.items()):
            yield f"{'warning' if kind in self.allowed else 'error'}: {count:,} {kind} in {summary.file}: {kind.remedy}"
            shown = [finding for finding in self.findings if finding.kind == kind and finding.file == summary.file][
                :SHOWN
            ]
            for finding in shown:
                row = "" if finding.row is None else f"row {finding.row}, "
                column = "" if finding.column is None else f"column {finding.column}: "
                yield f"    {row}{column}{finding.problem}"
            if count > len(shown):
                listed = "them" if count <= LISTED else f"{LISTED:,} of them"
                yield f"    ... {count - len(shown):,} more; --json lists {listed}"


def _as_dict(finding: Finding) -> dict[str, Any]:
    return {
        "kind": finding.kind.value,
        "file": finding.file,
        "row": finding.row,
        "column": finding.column,
        "problem": finding.problem,
        "remedy": finding.kind.remedy,
    }


def _lengths(lengths: array) -> str:
    found = length_summary(lengths)
    return "-" if found is None else f"{found['median']:,}/{found['p95']:,}/{found['max']:,}"


def _counts(summary: FileSummary) -> Iterable[str]:
    for name, counter in (("data_source", summary.sources), ("level", summary.levels)):
        if counter:
            rows = ", ".join(f"{key} {count:,}" for key, count in sorted(counter.items()))
            yield f"{summary.file}: by {name}: {rows}"
