"""Evaluates a model folder on parquet files: from questions to accuracies with confidence intervals.

    parquet -> questions -> vLLM -> grading while it generates -> generations.jsonl -> estimators -> summary.json

| module | contents |
|---|---|
| `questions` | reads parquet rows as questions and hashes the files |
| `protocol` | decides how many samples each source gets and how they are drawn |
| `tokens` | loads the tokenizer, checks it against the model, encodes prompts |
| `engine`, `replicas` | run vLLM offline: one replica in this process, or one per device |
| `store` | writes `generations.jsonl`, which survives interruptions |
| `estimators` | compute avg@n, pass@k, majority@n and their intervals (pure functions) |
| `summary` | builds `summary.json` and its table |
| `run` | runs one evaluation from start to finish |
| `compare` | compares two evaluations, paired by question |
| `errors` | defines the error that ends the command with one line |
"""
