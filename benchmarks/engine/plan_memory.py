"""Compare measured memory of Megatron workers on CPU with the plan: `python -m benchmarks.engine.plan_memory`.

Each case starts one process per rank with verl's Megatron engine, built from the same configuration as the plan, and
makes RL updates on random tokens in full micro-batches. It measures

* the sizes of the engine's buffers and optimizer state;
* torch's allocations during one update, from the profiler, at their peak and when the output layer begins;
* the largest resident memory of the process (VmHWM, reset before an update), minus that before the engine.

`--real` measures models of real shapes with random weights instead: SmolLM2-135M and Qwen2.5-0.5B in every layout of
two processes, in fp32 and bf16, a rank of every pipeline stage.

`--processes` instead runs a few training steps with a small model and prints the largest proportional set size of every
kind of process. The constants of `verl_relift/plan/memory.py` come from it.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from verl_relift.plan import memory
from verl_relift.plan.job import read
from verl_relift.run.composition import compose_config
from verl_relift.run.environment import prepare_environment

MIB = 1 << 20
MMAP_THRESHOLD = {"MALLOC_MMAP_THRESHOLD_": str(MIB)}
SEQUENCE = 256  # tokens of every sequence
_BEHIND_NORM = "behind the final norm"  # an event of the profiler
FULL_RECOMPUTE = tuple(
    f"actor_rollout_ref.actor.megatron.override_transformer_config.recompute_{name}"
    for name in ("granularity=full", "method=uniform", "num_layers=1")
)


@dataclass(frozen=True)
class Case:
    """One measurement.

    Attributes:
        shape: hidden, feed-forward, layers, heads, key-value heads, vocabulary; or a name in `REAL`.
        tokens: tokens of a micro-batch.
        ranks: number of processes.
        tensor: tensor-parallel size.
        recompute: whether activations are recomputed.
        give_back: whether freed memory returns to the system (MALLOC_MMAP_THRESHOLD_).
        pipeline: pipeline-parallel size.
        dtype: of weights and activations.
        fused: whether log-probs are computed with the output layer.
    """

    shape: tuple[int, int, int, int, int, int] | str
    tokens: int
    ranks: int = 1
    tensor: int = 1
    recompute: bool = False
    give_back: bool = False
    pipeline: int = 1
    dtype: str = "float32"
    fused: bool = True

    @property
    def data(self) -> int:
        """The data-parallel size."""
        return self.ranks // (self.tensor * self.pipeline)

    @property
    def overrides(self) -> list[str]:
        """The case as overrides of the configuration."""
        sequences = 2 * self.tokens // SEQUENCE * self.data  # two micro-batches per rank
        return [
            f"trainer.n_gpus_per_node={self.ranks}",
            f"actor_rollout_ref.actor.megatron.tensor_model_parallel_size={self.tensor}",
            f"actor_rollout_ref.actor.megatron.pipeline_model_parallel_size={self.pipeline}",
            f"actor_rollout_ref.actor.megatron.dtype={self.dtype}",
            f"actor_rollout_ref.model.use_fused_kernels={str(self.fused).lower()}",
            f"actor_rollout_ref.actor.ppo_max_token_len_per_gpu={self.tokens}",
            "actor_rollout_ref.actor.optim.total_training_steps=100",
            "actor_rollout_ref.rollout.n=1",
            f"actor_rollout_ref.actor.ppo_mini_batch_size={sequences}",
            f"data.train_batch_size={sequences}",
            f"data.max_prompt_length={SEQUENCE // 2}",
            f"data.max_response_length={SEQUENCE // 2}",
            *(FULL_RECOMPUTE if self.recompute else ()),
        ]

    @property
    def name(self) -> str:
        """The case in words."""
        sizes = (("TP", self.tensor), ("PP", self.pipeline), ("DP", self.data))
        layout = " ".join(f"{name}{size}" for name, size in sizes if size > 1 or name == "TP")
        dtype = "" if self.dtype == "float32" else f", {self.dtype}"
        apart = "" if self.fused else ", all logits at once"
        return f"{layout}, {self.tokens} tokens{dtype}{apart}" + (", recompute" if self.recompute else "")


SMALL = (384, 1024, 6, 6, 2, 16000)  # 22M parameters
MEDIUM = (640, 1792, 10, 10, 2, 16000)  # 65M
LARGE = (896, 2432, 12, 14, 2, 32000)  # 158M
CASES = [
    Case(SMALL, 1024),
    Case(SMALL, 2048),
    Case(SMALL, 1024, ranks=2, tensor=2),
    Case(SMALL, 1024, ranks=2),
    Case(SMALL, 1024, recompute=True),
    Case(MEDIUM, 1024),
    Case(MEDIUM, 1024, ranks=2, tensor=2),
    Case(LARGE, 512),
    Case(LARGE, 512, ranks=2, tensor=2),
]

REAL = {  # model -> its configuration, but for what decides no size
    "SmolLM2-135M": dict(
        model_type="llama", vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
        num_attention_heads=9, num_key_value_heads=3, tie_word_embeddings=True,
    ),
    "Qwen2.5-0.5B": dict(
        model_type="qwen2", vocab_size=151936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24,
        num_attention_heads=14, num_key_value_heads=2, tie_word_embeddings=True,
    ),
}  # fmt: skip
_LAYOUTS = ({}, {"ranks": 2}, {"ranks": 2, "pipeline": 2}, {"ranks": 2, "tensor": 2})
REAL_CASES = [
    Case(name, tokens, dtype=dtype, **layout)
    for name, tokens in (("SmolLM2-135M", 2048), ("Qwen2.5-0.5B", 1024))
    for dtype in ("float32", "bfloat16")
    for layout in _LAYOUTS
    # SmolLM2 has 9 heads.
    if not (name == "SmolLM2-135M" and "tensor" in layout)
]
REAL_CASES.append(Case("SmolLM2-135M", 2048, fused=False))


# ---- one rank --------------------------------------------------------------------------------------------------------


def _status(name: str) -> int:
    """Return a field of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


@dataclass
class _Rank:
    """The engine of one rank.

    Attributes:
        config: the composed configuration.
        engine: verl's engine.
        before: resident bytes before the engine.
    """

    config: object
    engine: object = field(init=False)
    before: int = field(init=False)

    def __post_init__(self) -> None:
        from verl.utils.config import omega_conf_to_dataclass
        from verl.workers.config import HFModelConfig
        from verl.workers.engine import EngineRegistry

        self.actor = omega_conf_to_dataclass(self.config.actor_rollout_ref.actor)
        self.model = HFModelConfig(path=self.config.actor_rollout_ref.model.path)
        # As verl's worker does it.
        self.actor.engine.use_fused_kernels = self.config.actor_rollout_ref.model.use_fused_kernels
        self.engine = EngineRegistry.new(
            model_type="language_model",
            backend="megatron",
            model_config=self.model,
            engine_config=self.actor.engine,
            optimizer_config=self.actor.optim,
            checkpoint_config=self.actor.checkpoint,
        )
        self.before = _status("VmRSS")
        self.engine.initialize()

    def update(self) -> None:
        """Make one RL update on random tokens."""
        from functools import partial

        from verl.workers.utils.losses import ppo_loss

        self.engine.train_batch(self._batch(), partial(ppo_loss, config=self.actor))

    def _batch(self):
        from functools import partial

        import torch
        from verl.utils import tensordict_utils as tu

        count = self.actor.ppo_mini_batch_size // self.engine.get_data_parallel_size()
        half = SEQUENCE // 2
        jagged = partial(torch.nested.as_nested_tensor, layout=torch.jagged)
        ids = [torch.randint(2, self.model.hf_config.vocab_size, (SEQUENCE,)) for _ in range(count)]
        mask = jagged([torch.ones(half, dtype=torch.int64) for _ in ids])
        return tu.get_tensordict(
            {
                "input_ids": jagged(ids),
                "position_ids": jagged([torch.arange(SEQUENCE) for _ in ids]),
                "prompts": jagged([row[:half] for row in ids]),
                "responses": jagged([row[half:] for row in ids]),
                "response_mask": mask,
                "loss_mask": mask,
                "old_log_probs": jagged([torch.randn(half) for _ in ids]),
                "advantages": jagged([torch.randn(half) for _ in ids]),
                "temperature": torch.ones(count),
            },
            {
                "use_dynamic_bsz": True,
                "max_token_len_per_gpu": self.actor.ppo_max_token_len_per_gpu,
                "calculate_entropy": True,
                "global_batch_size": self.actor.ppo_mini_batch_size,
                "use_remove_padding": True,
            },
        )

    def state(self) -> dict[str, int]:
        """Return the bytes by part that the engine keeps between updates."""
        import torch

        buffers = [buffer for chunk in self.engine.module for buffer in chunk.buffers]
        optimizers = getattr(self.engine.optimizer, "chained_optimizers", [self.engine.optimizer])
        tensors = [
            value
            for part in optimizers
            for state in part.optimizer.state.values()
            for value in state.values()
            if torch.is_tensor(value)
        ]
        if self.engine.param_dtype != torch.float32:  # of fp32 weights the masters are views
            tensors += [p for part in optimizers for group in part.optimizer.param_groups for p in group["params"]]
        return {
            "weights": sum(b.param_data.nbytes for b in buffers),
            "gradients": sum(b.grad_data.nbytes for b in buffers),
            "optimizer": sum(t.nbytes for t in tensors),
        }

    def allocations(self) -> dict[str, int]:
        """Return the bytes that torch has allocated at the final norm's output, and those added until the peak.

        On a pipeline stage without the norm all are activations.
        """
        from torch.profiler import ProfilerActivity, profile, record_function

        module = self.engine.module[0]
        while hasattr(module, "module"):
            module = module.module

        def mark(*_):
            with record_function(_BEHIND_NORM):
                pass

        hook = module.decoder.final_layernorm.register_forward_hook(mark) if module.post_process else None
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            self.update()
        if hook is not None:
            hook.remove()
        events = [
            (event.start_ns(), event.nbytes() if event.name() == "[memory]" else None)
            for event in profiler.profiler.kineto_results.events()
            if event.name() in ("[memory]", _BEHIND_NORM)
        ]
        allocated = peak = begins = 0
        for _, size in sorted(events, key=lambda event: event[0]):
            if size is None:
                begins = max(begins, allocated)
            else:
                allocated += size
                peak = max(peak, allocated)
        return {"activations": begins, "logits": peak - begins} if hook is not None else {"activations": peak}


def run_rank(output: Path, model: str, overrides: list[str]) -> None:
    """Measure one rank in this process and write the result to a JSON file in `output`.

    Args:
        output: an existing folder.
        model: a Hugging Face folder.
        overrides: the case's overrides.
    """
    import torch.distributed as dist
    import verl  # noqa: F401  loads the platform plugin
    from omegaconf import OmegaConf

    config = compose_config("relift", None, [f"actor_rollout_ref.model.path={model}", *overrides], "cpu")
    OmegaConf.resolve(config)
    dist.init_process_group("cpu:gloo")
    rank = _Rank(config)
    with rank.engine.train_mode():
        for _ in range(2):
            rank.update()
        idle = _status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        rank.update()
        peak = _status("VmHWM")
        tensors = rank.state() | rank.allocations()
    resident = {"before": rank.before, "idle": idle, "peak": peak}
    (output / f"{dist.get_rank()}.json").write_text(json.dumps({"tensors": tensors, "resident": resident}))
    dist.barrier()
    dist.destroy_process_group()


# ---- cases -----------------------------------------------------------------------------------------------------------


def make_model(folder: Path, shape: tuple[int, ...] | str) -> int:
    """Write a random model of a case's shape with a tokenizer and return its number of parameters."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from verl_relift.quickstart.base_model import build_tokenizer

    if isinstance(shape, str):
        sizes = REAL[shape]
    else:
        names = "hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads vocab_size"
        sizes = dict(zip(names.split(), shape, strict=True), model_type="qwen2", tie_word_embeddings=False)
    config = AutoConfig.for_model(**sizes, bos_token_id=None, eos_token_id=1, pad_token_id=0)
    model = AutoModelForCausalLM.from_config(config).float()
    model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def measure(case: Case, model: Path) -> list[dict]:
    """Start the ranks of a case and return what each measured.

    Raises:
        RuntimeError: a rank failed.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "WORLD_SIZE": str(case.ranks),
            **(MMAP_THRESHOLD if case.give_back else {}),
        }
        command = [sys.executable, "-m", "benchmarks.engine.plan_memory", "--rank", folder, "--model", str(model)]
        logs = [(Path(folder) / f"{rank}.log").open("w+") for rank in range(case.ranks)]
        processes = [
            subprocess.Popen(
                [*command, *case.overrides],
                env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            for rank, log in enumerate(logs)
        ]
        try:
            codes = [process.wait(timeout=900) for process in processes]
        finally:
            for process in processes:
                process.kill()
        if any(codes):
            logs[0].seek(0)
            raise RuntimeError(f"{case.name}: a rank failed\n{logs[0].read()[-3000:]}")
        return [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(case.ranks)]


def predict(case: Case, model: Path, stage: int = 0) -> tuple[dict[str, int], int]:
    """Return the plan's bytes by part of a rank of a stage, and the resident bytes that it adds to a process."""
    config = compose_config("relift", None, [f"actor_rollout_ref.model.path={model}", *case.overrides], "cpu")
    parts = memory.rank_parts(read(config), stage)
    factor = memory.HEAP_FACTOR_MMAP if case.give_back else memory.HEAP_FACTOR
    return parts, int(sum(parts.values()) * factor) + memory.WORKER_FIRST_STEP


PARTS = ("weights", "gradients", "optimizer", "activations", "logits")


def compare(cases: list[Case]) -> list[str]:
    """Measure every case and return the lines of a table."""
    rows = [
        f"| parameters | case | {' | '.join(PARTS)} | tensors | resident | resident, heap given back |",
        "|---" * (len(PARTS) + 5) + "|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        models: dict[tuple, tuple[Path, int]] = {}
        for case in cases:
            if case.shape not in models:
                path = Path(folder) / str(len(models))
                models[case.shape] = (path, make_model(path, case.shape))
            model, parameters = models[case.shape]
            measured = [measure(replace(case, give_back=give_back), model) for give_back in (False, True)]
            for stage in range(case.pipeline):
                of_stage = [ranks[stage * case.ranks // case.pipeline] for ranks in measured]
                where = f", stage {stage}" if case.pipeline > 1 else ""
                name = case.shape if isinstance(case.shape, str) else f"{parameters / 1e6:.0f}M"
                rows.append(f"| {name} | {case.name}{where} | {' | '.join(_cells(case, model, stage, of_stage))} |")
                print(rows[-1], flush=True)
    return rows


def _cells(case: Case, model: Path, stage: int, measured: list[dict]) -> list[str]:
    """Return the cells of one rank, measured with freed memory kept and given back."""
    predicted, _ = predict(case, model, stage)
    tensors = measured[0]["tensors"]
    cells = [_cell(predicted[part], tensors[part]) if part in tensors else "" for part in PARTS]
    cells.append(_cell(sum(predicted.get(part, 0) for part in PARTS), sum(tensors.values())))
    for give_back, result in zip((False, True), measured, strict=True):
        _, resident = predict(replace(case, give_back=give_back), model, stage)
        cells.append(_cell(resident, result["resident"]["peak"] - result["resident"]["before"]))
    return cells


def _cell(predicted: int, measured: int) -> str:
    return f"{predicted / MIB:.0f} / {measured / MIB:.0f} ({predicted / measured - 1:+.0%})"


# ---- processes of a run ----------------------------------------------------------------------------------------------


def _proportional_set_size(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def watch_processes(command: list[str]) -> tuple[dict[str, int], int]:
    """Run a command and return the largest proportional set size by kind of process, and of all processes, in bytes.

    Args:
        command: the command line.

    Raises:
        RuntimeError: the command failed.
    """
    import psutil

    largest: dict[str, int] = defaultdict(int)
    together = 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    root = psutil.Process(process.pid)
    while process.poll() is None:
        now: dict[str, int] = defaultdict(int)
        try:
            family = [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            break
        for member in family:
            try:
                now[_kind(member)] += _proportional_set_size(member.pid)
            except (OSError, psutil.Error):
                continue
        for kind, size in now.items():
            largest[kind] = max(largest[kind], size)
        together = max(together, sum(now.values()))
        time.sleep(0.5)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} exited with status {process.returncode}")
    return dict(largest), together


def _kind(process) -> str:
    """Return the kind of a process: the title of a Ray actor or of a vLLM process, `Ray`, or `driver`."""
    line = " ".join(process.cmdline()) or process.name()
    if line.startswith(("ray::", "VLLM::")):
        return line.split(".")[0].split("_")[0].strip()
    return "Ray" if "/ray/" in line or line.startswith("ray") else "driver"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="also write the tables to this file")
    parser.add_argument("--cases", type=int, nargs="*", help="indices of the cases to measure; default: all")
    parser.add_argument("--real", action="store_true", help="models of real shapes")
    parser.add_argument("--processes", nargs=argparse.REMAINDER, help="arguments of `verl_relift.train`")
    parser.add_argument("--rank", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    arguments, overrides = parser.parse_known_args()
    prepare_environment()
    os.environ["VERL_PLATFORM"] = "cpu"
    if arguments.rank:
        run_rank(arguments.rank, arguments.model, overrides)
        return
    if arguments.processes is not None:
        command = [sys.executable, "-m", "verl_relift.train", *arguments.processes]
        largest, together = watch_processes(command)
        rows = ["| process | largest proportional set size, MiB |", "|---|---|"]
        rows += [f"| {kind} | {size / MIB:.0f} |" for kind, size in sorted(largest.items(), key=lambda kv: -kv[1])]
        rows.append(f"| all at once | {together / MIB:.0f} |")
    else:
        cases = REAL_CASES if arguments.real else CASES
        rows = compare([cases[i] for i in arguments.cases] if arguments.cases else cases)
    text = "\n".join(
        [
            f"{datetime.now(UTC):%Y-%m-%d}: `{' '.join(['python -m benchmarks.engine.plan_memory', *sys.argv[1:]])}`",
            "",
            *rows,
        ]
    )
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
