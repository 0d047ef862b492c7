"""Tests that evaluation generates nearly as fast as bare `vllm.LLM.generate`, in one process on the same prompts.

`python tests/integration/test_evaluate_speed.py FOLDER [WIDTH LAYERS]`; 10M parameters by default.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from verl_relift.evaluate.engine import (
    Completion,
    EngineSettings,
    Request,
    Sampler,
    generate,
    prepare_environment,
    start_engine,
)

RESPONSES, TOKENS, ROUNDS = 512, 64, 4


@pytest.mark.slow
def test_evaluation_generates_at_nine_tenths_of_the_bare_engine(tmp_path):
    pytest.importorskip("vllm", reason="vLLM is not installed")
    # A process of its own: torch reads its number of threads once, and pytest's process has loaded it.
    ended = subprocess.run([sys.executable, __file__, tmp_path], capture_output=True, text=True, timeout=800)
    assert ended.returncode == 0, ended.stderr
    measured = json.loads(ended.stdout.splitlines()[-1])
    print(measured)
    assert measured["ratio"] >= 0.9


def measure(folder, width=384, layers=6):
    """Return tokens/s of both sides in alternating rounds, and the ratio of their best rounds."""
    prepare_environment(tensor_parallel=1, verbose=False)
    from verl_relift.evaluate.protocol import Sampling
    from verl_relift.evaluate.questions import EvaluationQuestion
    from verl_relift.quickstart.base_model import build_tokenizer
    from verl_relift.rewards import Grader

    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(folder / "model")
    _build_model(tokenizer, width, layers).save_pretrained(folder / "model")
    settings = EngineSettings(folder / "model", "auto", max_model_len=128, max_num_seqs=128)
    engine = start_engine(settings)
    questions = [
        EvaluationQuestion(f"f:{i}", "arithmetic", ({"role": "user", "content": f"{i}+{i}=?"},), str(2 * i))
        for i in range(RESPONSES)
    ]
    sampling = Sampling(temperature=1.0, max_tokens=TOKENS)
    ids = {
        question.key: tokenizer.apply_chat_template(
            list(question.messages), add_generation_prompt=True, return_dict=False
        )
        for question in questions
    }
    grader = Grader()
    rates: dict[str, list[int]] = {"bare": [], "evaluation": []}
    for turn in range(ROUNDS + 1):
        bare = _bare(engine, list(ids.values()))
        ours = _evaluation(engine, settings, questions, ids, sampling, grader, folder / str(turn))
        if turn:  # the first round warms up
            rates["bare"].append(round(bare))
            rates["evaluation"].append(round(ours))
    return {"tokens_per_second": rates, "ratio": max(rates["evaluation"]) / max(rates["bare"])}


def _build_model(tokenizer, width, layers):
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen2ForCausalLM(config)


def _bare(engine, prompts):
    from vllm import SamplingParams, TokensPrompt

    started = time.perf_counter()
    params = SamplingParams(temperature=1.0, max_tokens=TOKENS)
    outputs = engine.generate([TokensPrompt(prompt_token_ids=ids) for ids in prompts], params, use_tqdm=False)
    return sum(len(output.outputs[0].token_ids) for output in outputs) / (time.perf_counter() - started)


def _evaluation(engine, settings, questions, ids, sampling, grader, output):
    from verl_relift.evaluate.run import grade_and_store
    from verl_relift.evaluate.store import Store

    requests = [Request(q.key, 0, ids[q.key], sampling.seed_of(q.key, 0)) for q in questions]
    store = Store(output, {})
    started = time.perf_counter()
    results = generate(settings, Sampler(1.0, 1.0, TOKENS), requests, engine)
    completions = (result for result in results if isinstance(result, Completion))
    tokens = grade_and_store(completions, questions, grader, store)
    return tokens / (time.perf_counter() - started)


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), *map(int, sys.argv[2:]))))
