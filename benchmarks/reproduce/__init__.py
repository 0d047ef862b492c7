"""The methods of the ReLIFT paper against each other on the small arithmetic task, all on one stack.

    study (what is run) -> task (questions, bases) -> cell (one training, its record) -> run (all cells, resumable)
    records -> estimates -> claims, agreement -> report, plots

`python -m benchmarks.reproduce --help` is the command; benchmarks/results/reproduction/ keeps the records.
"""
