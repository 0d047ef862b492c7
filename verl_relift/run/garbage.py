"""Keep Python's cyclic garbage collector away from objects that never become garbage.

Importing verl, Megatron and vLLM creates nearly a million objects. A full collection visits each of them and stops the
process for half a second (docs/performance.md). During the imports this happens whenever the number of objects has
grown by a quarter; later, in the trainer, every few steps.
"""

import atexit
import gc

_DEFAULT_THRESHOLDS = gc.get_threshold()
# New objects minus freed ones between two collections of the youngest generation. Imports create little garbage.
_STARTING_THRESHOLD = 100_000


def defer() -> None:
    """Collect rarely until `freeze`, while this process starts."""
    gc.set_threshold(_STARTING_THRESHOLD, *_DEFAULT_THRESHOLDS[1:])


def freeze() -> None:
    """Exclude all present objects from collections, now that this process has started, and collect normally again."""
    gc.freeze()
    atexit.register(gc.unfreeze)  # otherwise libraries that look for leaks at exit report every frozen object
    gc.set_threshold(*_DEFAULT_THRESHOLDS)
