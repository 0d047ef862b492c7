"""Measures what ReLIFT adds to a training step, and the rollouts inside training against bare vLLM.

    python -m benchmarks.step --output DIR [--rounds N] [--sizes 0.4M 19M] [--record FILE.md]

| module | contents |
|---|---|
| `kinds` | names the kinds of steps that take turns in one training run |
| `run`, `trainer` | run `verl_relift.train` with a trainer whose steps take turns in kind |
| `bare_vllm` | answers prompts with `vllm.LLM` alone |
"""
