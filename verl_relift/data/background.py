"""Read-ahead: an iterator that runs in a thread, so that parsing overlaps with tokenizing.

Tokenizing releases Python's global lock, so the two run in parallel.
"""

import queue
import threading
from collections.abc import Iterable, Iterator

_POLL = 0.1  # seconds between checks whether the consumer has stopped


def read_ahead[T](items: Iterable[T], depth: int = 2) -> Iterator[T]:
    """Yield the same items, made by a thread ahead of their use.

    Args:
        items: consumed in the thread.
        depth: the largest number of items that wait to be used.

    Raises:
        BaseException: whatever `items` raises.
    """
    ready: queue.Queue[tuple[bool, T | BaseException | None]] = queue.Queue(depth)
    stopped = threading.Event()

    def put(entry: tuple[bool, T | BaseException | None]) -> None:
        while not stopped.is_set():
            try:
                return ready.put(entry, timeout=_POLL)
            except queue.Full:
                continue

    def produce() -> None:
        try:
            for item in items:
                put((True, item))
                if stopped.is_set():
                    return
            put((False, None))
        except BaseException as error:
            put((False, error))

    thread = threading.Thread(target=produce, name="read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            more, item = ready.get()
            if more:
                yield item  # type: ignore[misc]
            elif item is None:
                return
            else:
                raise item  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join()
