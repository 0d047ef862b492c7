"""What tests and benchmarks share: training commands, tiny models, engine workers, corpora.

No other room imports it.
"""
