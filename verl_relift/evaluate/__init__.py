"""Evaluation of a model folder on parquet files: from questions to numbers with intervals.

    parquet -> questions -> vLLM -> grading while it generates -> generations.jsonl -> estimators -> summary.json

| module | what it holds |
|---|---|
| `questions` | parquet rows as questions, with the files' hashes |
| `protocol` | how many samples of each source, and how they are drawn |
| `tokens` | the tokenizer, checked against the model, and prompts as token ids |
| `engine`, `replicas` | vLLM, offline: one replica in this process, or one per device |
| `store` | `generations.jsonl`: what is graded so far, across interruptions |
| `estimators` | avg@n, pass@k, majority@n and their intervals (pure) |
| `summary` | `summary.json` and its table |
| `run` | one evaluation from start to end |
| `compare` | two evaluations side by side, paired by question |
"""
