"""Measures grading: speed and verdicts against math-verify, hostile input, and its share of a training step.

    python -m benchmarks.grading --data DIR [--only speed cores gsm8k olympiad hostile mixed] [--output FILE.md]
    python -m benchmarks.grading.share --output DIR [--steps N]

| module | contents |
|---|---|
| `__main__` | compares the grader with math-verify, called serially |
| `share` | measures the grader inside a training step |
"""
