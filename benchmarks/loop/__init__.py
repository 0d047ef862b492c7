"""Measures the whole training loop: its speed against TRL's GRPOTrainer, and its state after kills.

    python -m benchmarks.loop --output DIR [--only NAME ...]
    python -m benchmarks.loop.kills --output DIR [--kills 30]

| module | contents |
|---|---|
| `turns` | lets training loops take turns on one machine and measures the turns |
| `ours`, `trl` | run `verl_relift.train` and TRL with steps that wait for their turn |
| `bare` | answers the same questions with vLLM alone |
| `parts` | compares an update of a pretrained model with Hugging Face |
| `kills` | kills a run at random instants and compares it with an undisturbed one |
"""
