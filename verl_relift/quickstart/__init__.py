"""Runs `make quickstart`: data, base model, evaluation, ReLIFT training, evaluation, export, sample usage, report.

| module | contents |
|---|---|
| `base_model` | pretrains the small base model |
| `random_model` | writes a randomly initialized model that reads any text |
| `stages` | runs a stage as a command and measures its memory |
| `progress` | shows the progress of training |
| `summary` | writes `summary.json` and decides whether the model learned |
"""
