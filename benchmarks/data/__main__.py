"""Measure speed and memory of data preparation, against `datasets` and against the tokenizer's own batched encoding.

    python -m benchmarks.data                       # all parts, about ten minutes
    python -m benchmarks.data --parts tokens        # one part: mapping, memory, tokens or check

Both sides of a ratio take turns in child processes, so that a change in the machine's load affects both. Prints a
Markdown table. --record FILE also writes it with the machine and the command.
"""

import argparse
import json
import multiprocessing.connection
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.machine import machine
from verl_relift.testing.tokenizer import make_tokenizer

TARGET_CHARACTERS = 4000
COMMON = "the of we have so then number sum let be is in which equal to value two prime root angle area if"
ANSWERS = ("{n}", "{n}", "{n}", "\\frac{{{n}}}{{7}}", "{n}\\sqrt{{3}}", "({n}, {m})", "x^2+{n}x")
TURNS = 5
Seconds = tuple[float, float]


def text_pool(seed: int, size: int = 8 << 20) -> str:
    """Return random words, numbers and formulas, about as varied as a solution."""
    rng, common = random.Random(seed), COMMON.split()
    made = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(3, 9))) for _ in range(20_000)]
    pieces, length = [], 0
    while length < size:
        kind = rng.random()
        piece = (
            rng.choice(common)
            if kind < 0.6
            else rng.choice(made)
            if kind < 0.85
            else f"${rng.randint(1, 999)}x+{rng.randint(1, 99)}$"
        )
        pieces.append(piece)
        length += len(piece) + 1
    return " ".join(pieces)


def write_source(path: Path, rows: int, seed: int, target_characters: Callable[[random.Random], int]) -> None:
    """Write a parquet file with columns question, answer, solution.

    Args:
        path: file to write.
        rows: number of rows.
        seed: seed of the contents.
        target_characters: draws the length of a solution.
    """
    rng, pool = random.Random(seed), text_pool(seed)
    with pq.ParquetWriter(
        path, pa.schema([(name, pa.string()) for name in ("question", "answer", "solution")])
    ) as writer:
        for start in range(0, rows, 5000):
            columns: dict[str, list[str]] = {"question": [], "answer": [], "solution": []}
            for i in range(start, min(start + 5000, rows)):
                answer = rng.choice(ANSWERS).format(n=rng.randint(2, 5000), m=rng.randint(2, 99))
                size, at = target_characters(rng), rng.randrange(len(pool) - 40_000)
                columns["question"].append(f"Problem {i}: {pool[at : at + 250]}?")
                columns["answer"].append(answer)
                columns["solution"].append(f"<think>{pool[at : at + size]}\n</think>\\boxed{{{spelling(answer, rng)}}}")
            writer.write_table(pa.table(columns))


def spelling(answer: str, rng: random.Random) -> str:
    """Return the answer as a model may spell it: one in ten differs from the ground truth in form."""
    return answer.replace("\\frac", "\\dfrac").replace(", ", ",") if rng.random() < 0.1 else answer


def in_child(function: Callable[..., Any], *arguments: object) -> tuple[Any, float]:
    """Call a function in a new process and return its result and the process's peak memory in GB.

    Raises:
        RuntimeError: the process failed.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(sender, function, arguments))
    child.start()
    sender.close()
    try:
        result = receiver.recv()
    except EOFError:
        child.join()
        raise RuntimeError(f"{function.__name__} exited with status {child.exitcode}") from None
    child.join()
    return result


def _child(sender: multiprocessing.connection.Connection, function: Callable[..., Any], arguments: tuple) -> None:
    result = function(*arguments)
    # The maximum of getrusage would start from the parent's size.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    sender.send((result, int(status["VmHWM"].split()[0]) / 1e6))


class Clock:
    """Measures wall-clock and processor seconds since it was created; load on the machine disturbs the latter less."""

    def __init__(self) -> None:
        self._start = time.perf_counter(), time.process_time()

    def read(self) -> Seconds:
        """Return (wall-clock, processor) seconds."""
        return time.perf_counter() - self._start[0], time.process_time() - self._start[1]


def run_ours(source: str, output: str, *flags: str) -> Seconds:
    """Return the seconds of data_preprocess.jsonl, including reading and writing but not imports."""
    from data_preprocess import jsonl
    from data_preprocess.cli import main

    if "--tokenizer" in flags:
        from verl_relift.data.tokens import load_tokenizer

        load_tokenizer(flags[flags.index("--tokenizer") + 1])
    clock = Clock()
    columns = ("--question-column", "question", "--answer-column", "answer", "--target-column", "solution")
    if main(jsonl.JSONL, ["--input", source, "--output", output, "--template", "think", "--quiet", *columns, *flags]):
        raise SystemExit(1)
    return clock.read()


def run_datasets(source: str, output: str) -> tuple[Seconds, Seconds]:
    """Return the seconds of datasets with the same mapping: from file to file, and of map and to_parquet alone."""
    import datasets

    from data_preprocess.template import Template, system_prompt

    datasets.disable_progress_bars()
    whole = Clock()
    data = datasets.Dataset.from_parquet(source, cache_dir=output)
    system = system_prompt(Template.THINK)

    def to_row(record: dict, index: int) -> dict:
        return {
            "data_source": "jsonl",
            "prompt": [{"role": "system", "content": system}, {"role": "user", "content": record["question"]}],
            "target": [{"role": "assistant", "content": record["solution"]}],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": record["answer"].strip()},
            "extra_info": {"index": index, "split": "train", "level": None, "id": None},
        }

    alone = Clock()
    mapped = data.map(to_row, with_indices=True, remove_columns=data.column_names)
    mapped.to_parquet(f"{output}/mapped.parquet")
    return whole.read(), alone.read()


def run_encoding(source: str, tokenizer: str, fast: bool) -> Seconds:
    """Return the seconds to encode the same texts in batches of 1000.

    Args:
        source: parquet file.
        tokenizer: folder of the tokenizer.
        fast: whether to call the Rust backend directly instead of the tokenizer.
    """
    from data_preprocess.template import Template, chat
    from verl_relift.data.tokens import load_tokenizer

    loaded = load_tokenizer(tokenizer)
    table = pq.read_table(source)
    chats = [
        [{"role": r, "content": c} for r, c in chat(question, Template.THINK)]
        for question in table["question"].to_pylist()
    ]
    prompts = [loaded.apply_chat_template(one, tokenize=False, add_generation_prompt=True) for one in chats]
    solutions = table["solution"].to_pylist()
    clock = Clock()
    for texts in (prompts, solutions):
        for i in range(0, len(texts), 1000):
            if fast:
                loaded.backend_tokenizer.encode_batch_fast(texts[i : i + 1000], add_special_tokens=False)
            else:
                loaded(texts[i : i + 1000], add_special_tokens=False)
    return clock.read()


def run_check(file: str, tokenizer: str | None) -> float:
    """Return the seconds of check_files, which reads and grades every row and tokenizes it if there is a tokenizer."""
    from data_preprocess.check import check_files

    report = check_files([file], tokenizer=tokenizer, max_target_tokens=8192 if tokenizer else None)
    if report.errors:
        raise SystemExit(report.table())
    return report.seconds


def in_turns(work: Path, *sides: Callable[[int], Any]) -> list[list]:
    """Let the sides take turns, each starting with another side, and return their measurements by side."""
    measured: list[list] = [[] for _ in sides]
    for turn in range(TURNS):
        for i in range(len(sides)):
            side = (turn + i) % len(sides)
            measured[side].append(sides[side](turn))
            for left in work.glob("out*"):
                shutil.rmtree(left)
    return measured


def ratio(ours: list[Seconds], theirs: list[Seconds]) -> str:
    """Return how many times faster ours is, by wall clock and by processor time: median over turns and range."""
    texts = []
    for i, name in enumerate(("", " of processor time")):
        each = sorted(b[i] / a[i] for a, b in zip(ours, theirs, strict=True))
        texts.append(f"{statistics.median(each):.2f}x{name} ({each[0]:.2f} to {each[-1]:.2f})")
    return ", ".join(texts)


def rows_per_second(rows: int, seconds: list[Seconds]) -> str:
    """Return rows per wall-clock second, the median over turns."""
    return f"{rows / statistics.median(wall for wall, _ in seconds):,.0f}"


def bench_mapping(work: Path, rows: int) -> Iterator[tuple[str, str, str]]:
    """Compare rows per second without tokenization with datasets."""
    size = rows // 20
    write_source(work / "turn.parquet", size, 1, lambda rng: TARGET_CHARACTERS)
    source = str(work / "turn.parquet")
    ours, theirs = in_turns(
        work,
        lambda turn: in_child(run_ours, source, str(work / f"out-ours-{turn}"))[0],
        lambda turn: in_child(run_datasets, source, str(work / f"out-theirs-{turn}"))[0],
    )
    whole, alone = ([pair[side] for pair in theirs] for side in (0, 1))
    speeds = f"{rows_per_second(size, ours)} against {rows_per_second(size, whole)} rows/s"
    turns = f"{TURNS} turns of {size:,} rows"
    what = "mapping from file to file, against datasets' from_parquet + map + to_parquet"
    yield what, ">= 1x", f"{ratio(ours, whole)}; {speeds}, {turns}"
    yield "the same, without the time that datasets takes to read the file", ">= 1x", ratio(ours, alone)


def bench_memory(work: Path, rows: int) -> Iterator[tuple[str, str, str]]:
    """Measure the peak memory of one run over all rows."""
    write_source(work / "all.parquet", rows, 2, lambda rng: TARGET_CHARACTERS)
    (seconds, _), memory = in_child(run_ours, str(work / "all.parquet"), str(work / "out-all"))
    megabytes = sum(path.stat().st_size for path in (work / "out-all").iterdir()) / 1e6
    shutil.rmtree(work / "out-all")
    what = f"{rows:,} rows with {TARGET_CHARACTERS:,}-character targets, peak memory"
    yield (
        what,
        "<= 2 GB",
        f"{memory:.2f} GB; {rows / seconds:,.0f} rows/s, {seconds:.0f} s, {megabytes:,.0f} MB written",
    )


def bench_tokens(work: Path, rows: int) -> Iterator[tuple[str, str, str]]:
    """Compare a whole run with tokenization with the tokenizer alone on the same texts.

    A turn has a hundredth of the rows. It cannot be much shorter: loading the tokenizer and Arrow's functions takes
    about half a second, which would dominate a turn of 1,000 rows.
    """
    size = rows // 100
    write_source(work / "tokens.parquet", size, 3, lambda rng: TARGET_CHARACTERS)
    source, tokenizer = str(work / "tokens.parquet"), str(make_tokenizer(work / "tokenizer", [text_pool(4)], 32_000))
    flags = ("--tokenizer", tokenizer, "--max-target-tokens", "8192")
    ours, *theirs = in_turns(
        work,
        lambda turn: in_child(run_ours, source, str(work / f"out-ours-{turn}"), *flags)[0],
        lambda turn: in_child(run_encoding, source, tokenizer, False)[0],
        lambda turn: in_child(run_encoding, source, tokenizer, True)[0],
    )
    for name, side in zip(("the tokenizer's batched call", "encode_batch_fast of its backend"), theirs, strict=True):
        speeds = f"{rows_per_second(size, ours)} against {rows_per_second(size, side)} rows/s"
        yield (
            f"whole run with tokenization, against {name} alone",
            ">= 0.9x",
            f"{ratio(ours, side)}; {speeds}, {TURNS} turns of {size:,} rows",
        )


def bench_check(work: Path, rows: int) -> Iterator[tuple[str, str, str]]:
    """Measure `check` on a file like OpenR1-Math-46k: targets of 1,500 to 28,000 characters, 11,000 on average."""
    size = max(rows * 46 // 1000, 1)
    write_source(
        work / "openr1.parquet", size, 5, lambda rng: min(28_000, max(1500, int(rng.lognormvariate(9.2, 0.5))))
    )
    in_child(run_ours, str(work / "openr1.parquet"), str(work / "checked"))
    file, tokenizer = str(work / "checked" / "train.parquet"), str(work / "tokenizer")
    megabytes = Path(file).stat().st_size / 1e6
    seconds, memory = in_child(run_check, file, None)
    yield (
        f"check, {size:,} rows ({megabytes:,.0f} MB), every answer graded",
        "<= 30 s",
        f"{seconds:.1f} s, {memory:.2f} GB",
    )
    if not Path(tokenizer).exists():
        make_tokenizer(Path(tokenizer), [text_pool(4)], 32_000)
    seconds, memory = in_child(run_check, file, tokenizer)
    yield "the same with --tokenizer (targets of 1,000 rows tokenized)", "<= 30 s", f"{seconds:.1f} s, {memory:.2f} GB"


PARTS = {"mapping": bench_mapping, "memory": bench_memory, "tokens": bench_tokens, "check": bench_check}


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        "benchmarks.data", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument(
        "--rows", type=int, default=1_000_000, help="rows of the memory part; the other parts scale with it"
    )
    parser.add_argument("--record", metavar="FILE", help="also write the table with machine and command to this file")
    flags = parser.parse_args()
    command = " ".join(["python -m benchmarks.data", *sys.argv[1:]])
    lines = ["| what | bar | measured |", "|---|---|---|"]
    with tempfile.TemporaryDirectory() as folder:
        for name in flags.parts:
            for row in PARTS[name](Path(folder), flags.rows):
                lines.append(f"| {' | '.join(row)} |")
                print(json.dumps(row), file=sys.stderr, flush=True)
    print("\n".join(lines))
    if flags.record:
        packages = ("pyarrow", "datasets", "tokenizers", "transformers")
        made_on = f"{machine()}; {', '.join(f'{name} {version(name)}' for name in packages)}"
        heading = f"# Data preparation\n\n{time.strftime('%Y-%m-%d')}. {made_on}.\n\n`{command}`\n\n"
        Path(flags.record).write_text(heading + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
