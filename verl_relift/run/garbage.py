"""Python's cyclic garbage collector and the objects that never become garbage.

Importing verl, Megatron and vLLM leaves nearly a million, and a full collection, which looks at each of them, stops a
process for half a second (docs/performance.md). There is one whenever they have grown by a quarter while they are
imported, and later, in the trainer, one every few steps.
"""

import atexit
import gc

_DEFAULT_THRESHOLDS = gc.get_threshold()
# New objects, less freed ones, between two collections of the youngest: imports make few that could be collected.
_STARTING_THRESHOLD = 100_000


def defer() -> None:
    """Collect seldom until :func:`freeze`, while this process starts."""
    gc.set_threshold(_STARTING_THRESHOLD, *_DEFAULT_THRESHOLDS[1:])


def freeze() -> None:
    """This process has started: collections leave alone what it holds now, the little garbage in it included."""
    gc.freeze()
    atexit.register(gc.unfreeze)  # else libraries that count what they leave behind report all of it
    gc.set_threshold(*_DEFAULT_THRESHOLDS)
