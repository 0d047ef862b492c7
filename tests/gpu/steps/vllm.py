"""vLLM alone: it sleeps and wakes with the same answers, and what seeds cost while it decodes.

The step runs this module once per model runner, each in a process that vLLM has to itself.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from ..report import Report
from ..step import Task

# Qwen2's default runner keeps a generator per sequence; the other draws from seeds in one kernel.
RUNNERS = {"V1 runner": "0", "V2 runner": "1"}
SEQUENCES, TOKENS = 256, 256


def run(report: Report, task: Task) -> None:
    """Start one process per runner and note what each found."""
    from .. import models

    models.save("0.5b" if task.cuda else "tiny", task.folder / "model", task.device)
    # vLLM's CPU build has one runner.
    for name, chosen in list(RUNNERS.items())[: None if task.cuda else 1]:
        with report.part(name):
            output = task.folder / "found.json"
            environment = {**os.environ, "VLLM_USE_V2_MODEL_RUNNER": chosen, "VLLM_NO_USAGE_STATS": "1"}
            command = [sys.executable, "-m", __name__, task.device, str(task.folder / "model"), str(output)]
            subprocess.run(command, env=environment, check=True, timeout=task.seconds)
            found = json.loads(output.read_text())
            for figure, value in found["figures"].items():
                report.figure(f"{name}: {figure}", value)
            for check in found["checks"]:
                report.check(f"{name}: {check['name']}", check["holds"], check["found"], check["wanted"])


def main() -> None:
    """Measure one engine in this process."""
    device, model, output = sys.argv[1:]
    from vllm import LLM

    cuda = device == "cuda"
    settings = dict(gpu_memory_utilization=0.4, enable_sleep_mode=True) if cuda else dict(enforce_eager=True)
    if not cuda:
        settings |= dict(num_gpu_blocks_override=256, dtype="float32", enable_chunked_prefill=False)
    started = time.perf_counter()
    llm = LLM(str(model), max_model_len=1024, max_num_seqs=SEQUENCES, seed=0, **settings)
    found = Report(Path(output), "vllm", device)
    found.figure("start, seconds", round(time.perf_counter() - started, 1))
    _sleep_and_wake(found, llm, cuda)
    _decode(found, llm, *((SEQUENCES, TOKENS) if cuda else (16, 16)))


def _sleep_and_wake(found: Report, llm, cuda: bool) -> None:
    from vllm import SamplingParams

    prompts = [{"prompt_token_ids": [5 + (i * j) % 200 for j in range(1, 40)]} for i in range(1, 9)]
    greedy = SamplingParams(temperature=0.0, max_tokens=32, ignore_eos=True)

    def answers() -> list:
        return [list(output.outputs[0].token_ids) for output in llm.generate(prompts, greedy, use_tqdm=False)]

    before = answers()
    if not cuda:
        found.check("the same answers again", answers() == before, "as before", "equal; a CPU's vLLM does not sleep")
        return
    awake = _memory_in_use()
    for number in range(3):
        llm.sleep(level=1)
        asleep = _memory_in_use()
        llm.wake_up(tags=["weights"])
        llm.wake_up(tags=["kv_cache"])
        holds = answers() == before
        found.check(f"answers after sleep {number + 1}", holds, "equal" if holds else "others", "equal")
        freed = f"{awake:.1f} GiB awake, {asleep:.1f} asleep"
        found.check(f"sleep {number + 1} gives memory back", asleep < awake / 3, freed, "less than a third stays")


def _memory_in_use() -> float:
    """Return the GiB in use on the GPU."""
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]) / 1024


def _decode(found: Report, llm, sequences: int, tokens: int) -> None:
    """Time decoding with and without a seed per sequence, in turns."""
    from vllm import SamplingParams

    prompts = [{"prompt_token_ids": [5 + (i + j) % 200 for j in range(32)]} for i in range(sequences)]

    def decode(seeded: bool) -> tuple[float, list]:
        parameters = [
            SamplingParams(
                temperature=1.0, max_tokens=tokens, ignore_eos=True, seed=i if seeded else None, detokenize=False
            )
            for i in range(sequences)
        ]
        started = time.perf_counter()
        outputs = llm.generate(prompts, parameters, use_tqdm=False)
        return time.perf_counter() - started, [list(output.outputs[0].token_ids) for output in outputs]

    runs: dict[bool, list] = {False: [], True: []}
    for _ in range(3):
        for seeded in runs:
            runs[seeded].append(decode(seeded))
    for seeded, name in ((False, "without seeds"), (True, "with seeds")):
        seconds = min(run[0] for run in runs[seeded])
        found.figure(f"{name}, {sequences} sequences: tokens/s", round(sequences * tokens / seconds))
        found.figure(f"{name}: ms per decoding step", round(1000 * seconds / tokens, 2))
    same = [sum(a == b for a, b in zip(runs[True][0][1], run[1], strict=True)) for run in runs[True][1:]]
    found.figure(f"with seeds: responses equal when repeated, of {sequences}", same)


if __name__ == "__main__":
    main()
