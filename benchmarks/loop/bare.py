"""Answers questions with vLLM alone, in one engine with all cores or in an engine per core."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

# As in evaluations and rollouts; the rest is vLLM's choice.
_ENVIRONMENT = {
    "VERL_PLATFORM": "cpu",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "2",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TOKENIZERS_PARALLELISM": "false",
}


def rates(
    model: Path, data: Path, questions: int, rollouts: int, max_tokens: int, dtype: str, cores: int
) -> dict[str, float]:
    """Return response tokens per second by way of using the cores, the second of two equal calls each.

    Args:
        model: a Hugging Face folder.
        data: parquet file; its first questions are asked.
        questions: how many.
        rollouts: of each question.
        max_tokens: length limit of a response.
        dtype: vLLM's name of the weights' type.
        cores: how many there are.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    chats = [row["prompt"] for row in pq.read_table(data, columns=["prompt"]).slice(0, questions).to_pylist()]
    prompts = [tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False) for chat in chats]
    longest = max(map(len, prompts)) + max_tokens
    arguments = {
        "model": str(model),
        "dtype": dtype,
        "max_model_len": longest,
        "enforce_eager": True,
        "num_gpu_blocks_override": questions * rollouts * -(-longest // 128) + 1,
        "seed": 0,
    }
    sampling = {"n": rollouts, "temperature": 1.0, "max_tokens": max_tokens}
    return {
        f"{engines} x {cores // engines} threads": _rate(arguments, prompts, sampling, engines, cores // engines)
        for engines in (1, cores)
    }


def _rate(arguments: dict, prompts: list[list[int]], sampling: dict, engines: int, threads: int) -> float:
    environment = {**os.environ, **_ENVIRONMENT, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "benchmarks.step.bare_vllm", json.dumps(arguments)]
    processes = [
        subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(engines)
    ]
    try:
        for process in processes:
            json.loads(process.stdout.readline())  # it is ready
        for _ in range(2):
            for number, process in enumerate(processes):
                share = prompts[number::engines]
                # Without seeds, which bare vLLM does not need.
                request = {"prompts": share, "seeds": [None] * len(share), "sampling": sampling}
                process.stdin.write(json.dumps(request) + "\n")
                process.stdin.flush()
            answers = [json.loads(process.stdout.readline()) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return sum(answer["tokens"] for answer in answers) / max(answer["seconds"] for answer in answers)
