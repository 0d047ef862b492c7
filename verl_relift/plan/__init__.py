"""Estimates what a run needs before it starts: memory by part and phase, tokens and FLOPs per step.

| module | contents |
|---|---|
| `shapes` | counts the parameters of a model and where they are |
| `job` | reads from a configuration what the arithmetic needs |
| `memory` | computes bytes by part and phase, on CUDA and on CPU |
| `flops` | computes tokens, FLOPs and seconds of a step |
| `hardware` | knows what GPUs have, and what this machine has |
| `advice` | finds the largest token budget that fits, and changes that make a run fit |
| `uncounted` | names settings that the arithmetic does not follow |
| `planner` | makes a whole plan from a configuration |
| `tracing` | compares the arithmetic with a trace of the real engine (`verl_relift.trace`) |
| `report` | shows a plan as tables and as JSON |

Nothing here imports torch, verl, Ray or vLLM, so that it runs on a login node.
"""

from .advice import refusals

__all__ = ["refusals"]
