"""Compares the methods of the ReLIFT paper on the small arithmetic task, all on one stack.

    study (what to run) -> task (questions, base models) -> cell (one training and its record) -> run (all cells)
    records -> estimates -> claims, agreement -> report, plots, overview

    python -m benchmarks.reproduce --output DIR [--study NAME] [--jobs N] [--reduced]

| module | contents |
|---|---|
| `study` | defines the studies: methods x base models x seeds, and ablations |
| `task` | makes questions, base models and selected demonstrations |
| `cell` | makes the command of a cell and its record |
| `run` | runs the cells of a study and continues after an interruption |
| `records` | reads and writes records; `benchmarks/results/reproduction/` has the kept ones |
| `estimates` | computes means, spreads and differences with confidence intervals |
| `claims` | tests the paper's claims |
| `agreement` | compares repeated cells with the kept record |
| `report`, `plots`, `overview` | write the report of a study, its images, and the table of all studies |
"""
