"""What a run needs before it has it: memory by part and phase, tokens and FLOPs per step.

| module | what it holds |
|---|---|
| `shapes` | parameters of a model and where they are |
| `job` | what of a configuration the arithmetic reads |
| `memory` | bytes by part and phase, on CUDA and on CPU |
| `flops` | tokens, FLOPs and seconds of a step |
| `hardware` | what a GPU has; what this machine has |
| `advice` | the largest token budget that fits, and what to change when nothing does |
| `report` | tables and JSON |

Nothing here imports torch, verl, Ray or vLLM: it answers on a login node.
"""

from .advice import refusals

__all__ = ["refusals"]
