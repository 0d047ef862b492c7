"""Which part of a method matters: the gate, the place in the batch, or the weight of a demonstration's tokens.

    design (what to run) -> tasks (questions, base models) -> cell (one training and its record) -> __main__ (all cells)
    records -> effects (main effects, interactions, budget-matched pairs) -> report, plots -> docs/evidence.md

    python -m benchmarks.evidence --list
    python -m benchmarks.evidence --study small|real --output DIR [--block NAME ...] [--seeds N ...] [--cell NAME ...]
    python -m benchmarks.evidence.report
    python -m benchmarks.evidence.again --study small|real --output DIR

| module | contents |
|---|---|
| `design` | defines treatments, settings, searches and the cells of both studies |
| `tasks` | makes a setting's questions and its base model |
| `cell` | makes the command of a cell and its record |
| `records` | defines the record of a cell; `benchmarks/results/evidence/` has one file for each that is done |
| `effects` | estimates effects with intervals, corrected for the number of comparisons |
| `again` | repeats kept cells and compares |
| `report`, `plots` | write docs/evidence.md and its image from the records |
"""
