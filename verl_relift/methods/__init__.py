"""Methods of mixing demonstrations into reinforcement learning: one file each, and what they are made of.

| module | what it holds |
|---|---|
| `base` | the seam: `Method`, and what a step takes from it |
| `registry` | name -> class; what `method=NAME` chooses |
| `gate` | which questions get guidance |
| `collecting` | methods that collect demonstrations of those questions |
| `schedule` | when a supervised update is due, and its learning rate |
| `placement` | where demonstrations meet the RL update |
| `joining` | methods whose demonstrations are rows of groups |
| `stream` | demonstrations drawn apart from the step's questions |
| `guidance`, `heads` | heads of answers and hints in questions |
| `weight` | losses of tokens and their weights |

Every other module is a method, which `registry` lists.

docs/extend.md adds a method. Nothing here imports torch, verl, Ray or vLLM.
"""

from .base import Method, Needs, Resources, Stage, Supervised
from .registry import METHODS, method_class, read_method, without_solutions

__all__ = [
    "METHODS",
    "Method",
    "Needs",
    "Resources",
    "Stage",
    "Supervised",
    "method_class",
    "read_method",
    "without_solutions",
]
