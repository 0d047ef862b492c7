"""Compare the plan's arithmetic with traces of the real engine: `python -m benchmarks.engine.plan_trace`.

Each case is a training command for GPUs. A process of its own builds verl's engine as one rank of the run, without a
GPU (`verl_relift.trace`), and makes the updates of a step. The table has the peak of every phase as planned and as
traced; `--output` writes it to a file.

`--measured` traces cases of `benchmarks.engine.plan_memory` instead, on a CPU in fp32, beside what torch's profiler
measures of the real engine with real memory.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.engine import plan_memory
from verl_relift.plan.job import read
from verl_relift.plan.shapes import BUILT_IN, ModelShape, load_config, to_config
from verl_relift.plan.tracing import TRAINING_PHASES, Traced, trace_job
from verl_relift.run.composition import compose_config
from verl_relift.run.environment import prepare_environment

GIB = 1 << 30
ACTOR = "actor_rollout_ref.actor"
MEGATRON = f"{ACTOR}.megatron"
LIMIT = 0.03  # of the trace

MODELS = {
    "1.5B": BUILT_IN["Qwen/Qwen2.5-1.5B-Instruct"],
    "7B": BUILT_IN["Qwen/Qwen2.5-7B"],
    "8B": BUILT_IN["meta-llama/Llama-3.1-8B"],
    "qwen3-4B": ModelShape(151936, 2560, 9728, 36, 32, 8, 128, True, False, True),
    "mistral-7B": ModelShape(32768, 4096, 14336, 32, 32, 8, 128, False, False, False),
}


def _recompute(granularity: str, method: str | None = None, layers: int | None = None) -> tuple[str, ...]:
    prefix = f"{MEGATRON}.override_transformer_config.recompute"
    values = {"granularity": granularity, "method": method, "num_layers": layers}
    return tuple(f"{prefix}_{name}={value}" for name, value in values.items() if value is not None)


@dataclass(frozen=True)
class Case:
    """A configuration to plan and to trace.

    Attributes:
        model: a key of `MODELS`.
        tensor, pipeline, context: sizes of parallelism.
        gpus: number of GPUs.
        tokens: token budget of a micro-batch.
        method: the method.
        overrides: further overrides.
        local_spec: without Transformer Engine.
    """

    model: str
    tensor: int = 1
    pipeline: int = 1
    context: int = 1
    gpus: int = 8
    tokens: int = 16384
    method: str = "relift"
    overrides: Sequence[str] = ()
    local_spec: bool = False

    @property
    def name(self) -> str:
        """The case in words."""
        data = self.gpus // (self.tensor * self.pipeline * self.context)
        sizes = {"TP": self.tensor, "PP": self.pipeline, "CP": self.context, "DP": data}
        layout = " ".join(f"{name}{size}" for name, size in sizes.items() if size > 1) or "one GPU"
        more = [override.split(".")[-1].removeprefix("recompute_") for override in self.overrides]
        more += ["local spec"] * self.local_spec
        return ", ".join([layout, f"{self.tokens} tokens", self.method, *more])

    def arguments(self, model: Path) -> list[str]:
        """Return the case as overrides of the configuration."""
        return [
            f"method={self.method}",
            f"actor_rollout_ref.model.path={model}",
            f"trainer.n_gpus_per_node={self.gpus}",
            f"{MEGATRON}.tensor_model_parallel_size={self.tensor}",
            f"{MEGATRON}.pipeline_model_parallel_size={self.pipeline}",
            f"{MEGATRON}.context_parallel_size={self.context}",
            f"{ACTOR}.ppo_max_token_len_per_gpu={self.tokens}",
            *self.overrides,
        ]


SEPARATE = ("method.sft.optimizer=separate",)
SMALL_SFT = ("method.sft.max_token_len_per_gpu=9728",)
CASES = [
    Case("1.5B", gpus=1, tokens=9728),
    Case("1.5B", tokens=16384),
    Case("1.5B", tensor=2),
    Case("1.5B", tensor=2, overrides=SEPARATE),
    Case("1.5B", tensor=2, method="relift_splice"),
    Case("1.5B", tensor=2, overrides=_recompute("full", "uniform", 1)),
    Case("1.5B", pipeline=2, tokens=9728),
    Case("1.5B", tensor=2, overrides=(f"+{MEGATRON}.override_transformer_config.sequence_parallel=false",)),
    Case("1.5B", tensor=2, local_spec=True),
    Case("7B", tensor=2, tokens=9728),
    Case("7B", tensor=4),
    Case("7B", tensor=4, gpus=64),
    Case("7B", tensor=4, overrides=SEPARATE + SMALL_SFT),
    Case("7B", tensor=4, method="grpo"),
    Case("7B", tensor=4, method="sft"),
    Case("7B", tensor=4, method="relift_splice"),
    Case("7B", tensor=4, method="rl_with_sft_loss"),
    Case("7B", tensor=2, overrides=_recompute("full", "uniform", 1)),
    Case("7B", tensor=2, overrides=_recompute("full", "uniform", 4)),
    Case("7B", tensor=2, overrides=_recompute("full", "block", 14)),
    Case("7B", tensor=2, pipeline=2, overrides=_recompute("full", "uniform", 1)),
    Case("7B", tensor=2, pipeline=4, gpus=16, tokens=9728),
    Case("7B", tensor=2, context=2, tokens=8192),
    Case("7B", tensor=2, context=4, gpus=16, tokens=8192, overrides=("data.max_response_length=31744",)),
    Case("8B", tensor=4),
    Case("8B", tensor=8),
    Case("8B", tensor=2, pipeline=2, gpus=16, tokens=9728),
    Case("8B", tensor=4, local_spec=True, tokens=9728),
    Case("qwen3-4B", tensor=2, tokens=9728),
    Case("qwen3-4B", tensor=2, tokens=9728, local_spec=True),
    Case("qwen3-4B", tensor=4, overrides=(f"{ACTOR}.entropy_coeff=0", "relift.reuse_log_probs=true")),
    Case("mistral-7B", tensor=4),
    Case("mistral-7B", tensor=2, tokens=9728, overrides=("relift.speed_patches=false",)),
]


def run(case: Case, layers: int | None = None) -> list[Traced]:
    """Plan and trace a case.

    Args:
        case: the configuration.
        layers: number of layers instead of the model's.
    """
    with tempfile.TemporaryDirectory() as name:
        model = to_config(MODELS[case.model])
        if layers is not None:
            model["num_hidden_layers"] = layers
        (Path(name) / "config.json").write_text(json.dumps(model))
        config = compose_config("relift", None, case.arguments(Path(name)), "cuda")
        job = read(config, transformer_engine=not case.local_spec)
        return trace_job(config, job, load_config(name)[0])


def rows(case: Case, traced: Sequence[Traced]) -> list[str]:
    """Return the rows of a case: a row for each traced rank."""
    found = []
    for rank in traced:
        cells = []
        for phase in (*TRAINING_PHASES, "weight sync", "checkpoint"):
            if phase not in rank.phases:
                cells.append("")
                continue
            planned, measured = sum(rank.planned[phase].values()) / GIB, rank.peak(phase) / GIB
            cells.append(f"{planned:.2f} / {measured:.2f} ({rank.difference(phase):+.1%})")
        stage = f", stage {rank.stage}" if rank.work.pipeline_size > 1 else ""
        cells += [f"{rank.peak('checkpoint', 'host') / GIB:.1f}", f"{rank.seconds:.0f}", f"{rank.process / GIB:.1f}"]
        found.append(f"| {case.model} | {case.name}{stage} | {' | '.join(cells)} |")
    return found


def compare_with_measured(numbers: Sequence[int]) -> list[str]:
    """Trace and measure cases of `plan_memory`, and return the lines of a table, in MiB.

    Args:
        numbers: indices of the cases.
    """
    parts = ("weights", "gradients", "optimizer", "activations", "logits")
    lines = [f"| case | {' | '.join(parts)} | sum |", "|---" * (len(parts) + 2) + "|"]
    for case in (plan_memory.CASES[number] for number in numbers):
        with tempfile.TemporaryDirectory() as name:
            model = Path(name)
            parameters = plan_memory.make_model(model, case.shape)
            measured = plan_memory.measure(case, model)[0]["tensors"]
            config = compose_config("relift", None, [f"actor_rollout_ref.model.path={model}", *case.overrides], "cpu")
            (rank,) = trace_job(config, read(config), load_config(name)[0])
        traced = rank.phases["RL update"]["device"]["parts"]
        pairs = [(traced[part], measured[part]) for part in parts]
        pairs.append((sum(traced.values()), sum(measured[part] for part in parts)))
        cells = [f"{a / (1 << 20):.0f} / {b / (1 << 20):.0f}" for a, b in pairs]
        lines.append(f"| {parameters / 1e6:.0f}M, {case.name} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    return lines


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="also write the table to this file")
    parser.add_argument("--cases", type=int, nargs="*", help="indices of the cases; default: all")
    parser.add_argument("--layers", type=int, help="number of layers instead of the models'")
    parser.add_argument("--measured", type=int, nargs="+", help="indices of cases of plan_memory to measure, too")
    arguments = parser.parse_args()
    prepare_environment()
    if arguments.measured:
        os.environ["VERL_PLATFORM"] = "cpu"
        compare_with_measured(arguments.measured)
        return 0
    columns = ("model", "case", *TRAINING_PHASES, "weight sync", "checkpoint", "host", "s", "process")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    print("\n".join(lines), flush=True)
    worst = 0.0
    for case in [CASES[i] for i in arguments.cases] if arguments.cases else CASES:
        traced = run(case, arguments.layers)
        for line in rows(case, traced):
            lines.append(line)
            print(line, flush=True)
        updates = [abs(rank.difference(p)) for rank in traced for p in TRAINING_PHASES[1:] if p in rank.phases]
        worst = max(worst, *updates)
    lines += ["", f"Largest difference of an update: {worst:.1%}."]
    print("\n".join(lines[-2:]))
    if arguments.output:
        command = " ".join(["python -m benchmarks.engine.plan_trace", *sys.argv[1:]])
        arguments.output.write_text("\n".join([f"{datetime.now(UTC):%Y-%m-%d}: `{command}`", "", *lines, ""]))
    return 0 if worst <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
