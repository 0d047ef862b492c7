"""Methods of mixing demonstrations into reinforcement learning: one file each, and what they are made of.

| module | what it holds |
|---|---|
| `base` | the seam: `Method`, and what a step takes from it |
| `registry` | name -> class; what `method=NAME` chooses |
| `gate` | which questions get guidance |
| `collecting` | methods that collect demonstrations of those questions |
| `schedule` | when a supervised update is due, and its learning rate |
| `placement` | where demonstrations meet the RL update |
| `weight` | the weight of a token's loss |
| `relift`, `relift_authors`, `relift_splice`, `grpo`, `sft`, `rl_with_sft_loss`, `sft_then_rl` | the methods |

docs/extend.md adds a method. Nothing here imports torch, verl, Ray or vLLM.
"""

from .base import Method, Needs, Resources, Stage, Supervised
from .registry import METHODS, method_class, read_method

__all__ = ["METHODS", "Method", "Needs", "Resources", "Stage", "Supervised", "method_class", "read_method"]
