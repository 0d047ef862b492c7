"""Measures the Megatron engine: updates, tensor parallelism, FLOP/s, weight sync, growth, transfer, plan's memory.

    python -m benchmarks.engine [--only actor tp flops sync growth] [--output FILE.md]
    python -m benchmarks.engine.transfer [--output FILE.md]
    python -m benchmarks.engine.plan_memory [--real] [--output FILE.md]
    python -m benchmarks.engine.vocabulary [--output FILE.md]

| module | contents |
|---|---|
| `batch` | defines the models and rollouts that both sides use |
| `worker`, `hf` | make the same update with verl's Megatron engine and with Hugging Face |
| `weight_receiver` | receives weights in vLLM |
| `matrix_work` | counts and times the matrix products of an update |
| `growth` | measures how each stage's cost grows with a size |
| `transfer`, `transfer_worker` | measure a step's rollouts through TransferQueue |
| `plan_memory` | compares measured memory with `verl_relift.plan` |
| `vocabulary` | measures an update of a model with a real vocabulary: logits at once or in blocks, fp32 or bf16 |
"""
