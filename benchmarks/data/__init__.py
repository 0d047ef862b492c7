"""Measures data preparation: speed and memory against `datasets` and against the tokenizer's own batched encoding.

python -m benchmarks.data [--parts mapping memory tokens check] [--record FILE]
"""
