"""Bytes of tensors that are alive, by where they are and what they are for, and their peak in each phase."""

import os
import sys
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import torch


class Place(StrEnum):
    """Where a tensor would be."""

    DEVICE = "device"
    HOST = "host"


@dataclass(frozen=True)
class Allocation:
    """What a tensor was allocated for, and by which line of code."""

    place: Place
    part: str
    site: str


@dataclass
class Peak:
    """The largest number of bytes that were alive at one time in a phase.

    Attributes:
        total: bytes in this place.
        live: bytes by allocation when `total` was reached.
    """

    total: int = 0
    live: Counter = field(default_factory=Counter)
    _noted: bool = True

    def rise(self, total: int) -> None:
        """Raise the peak; what is alive is noted before anything of it is freed."""
        self.total, self._noted = total, False

    def note(self, live: Counter) -> None:
        """Keep what is alive, if the peak is new."""
        if not self._noted:
            self.live, self._noted = Counter(live), True

    def by_part(self) -> dict[str, int]:
        """Return the bytes by part."""
        parts: Counter = Counter()
        for allocation, size in self.live.items():
            parts[allocation.part] += size
        return {part: size for part, size in parts.items() if size}


SITE_FROM = 1 << 20  # bytes; smaller tensors are not told apart by line


class Memory:
    """Counts storages from when they are first seen until they are freed."""

    def __init__(self):
        self.part = "other"  # what a new tensor is for
        self.place: Place | None = None  # where a new tensor is; None: where those that it is made from are
        self.peaks: dict[str, dict[Place, Peak]] = {}
        self._phase: dict[Place, Peak] | None = None
        self._totals = dict.fromkeys(Place, 0)
        self._live: dict[Place, Counter] = {place: Counter() for place in Place}
        self._storages: dict[int, tuple[int, Allocation]] = {}
        self._uncounted = 0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Record the peak of what happens inside."""
        before = self._phase
        self._phase = self.peaks[name] = {place: Peak() for place in Place}
        for place, peak in self._phase.items():
            peak.rise(self._totals[place])
        try:
            yield
        finally:
            self._note()
            self._phase = before

    @contextmanager
    def of(self, part: str | None = None, place: Place | None = None) -> Iterator[None]:
        """Count what is allocated inside as `part`, in `place`; None changes nothing."""
        before = self.part, self.place
        self.part, self.place = part or self.part, place or self.place
        try:
            yield
        finally:
            self.part, self.place = before

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """Count nothing that is allocated inside: what a compiled function keeps in registers."""
        self._uncounted += 1
        try:
            yield
        finally:
            self._uncounted -= 1

    def place_of(self, tensor: torch.Tensor) -> Place | None:
        """Return where a tensor is; None if it was never seen."""
        known = self._storages.get(tensor.untyped_storage()._cdata)
        return known[1].place if known else None

    def see(self, tensor: torch.Tensor, made_from: Place | None) -> None:
        """Count the storage of a tensor, unless it is known.

        Args:
            made_from: where the tensors are that it is made from.
        """
        if self._uncounted:
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._storages:
            return
        size = storage.nbytes()
        site = _site() if size >= SITE_FROM else "small tensors"
        allocation = Allocation(self.place or made_from or Place.DEVICE, self.part, site)
        self._storages[key] = size, allocation
        weakref.finalize(storage, self._free, key).atexit = False
        self._add(allocation, size)

    def rename(self, tensor: torch.Tensor, part: str) -> None:
        """Count the storage of a tensor as another part from now on."""
        key = tensor.untyped_storage()._cdata
        if key not in self._storages:
            return
        size, old = self._storages[key]
        self._note()
        new = Allocation(old.place, part, old.site)
        self._live[old.place][old] -= size
        self._live[old.place][new] += size
        self._storages[key] = size, new

    def total(self, place: Place = Place.DEVICE) -> int:
        """Return the bytes that are alive now."""
        return self._totals[place]

    def _add(self, allocation: Allocation, size: int) -> None:
        place = allocation.place
        self._totals[place] += size
        self._live[place][allocation] += size
        if self._phase is not None and self._totals[place] > self._phase[place].total:
            self._phase[place].rise(self._totals[place])

    def _free(self, key: int) -> None:
        size, allocation = self._storages.pop(key)
        self._note()
        self._totals[allocation.place] -= size
        self._live[allocation.place][allocation] -= size

    def _note(self) -> None:
        if self._phase is not None:
            for place, peak in self._phase.items():
                peak.note(self._live[place])


# Not where a tensor comes from: torch, this package, and patches around upstream's functions.
_BETWEEN = (os.path.dirname(torch.__file__), os.path.dirname(__file__), str(Path(__file__).parents[1] / "upstream"))


def _site() -> str:
    """Return the innermost line outside of torch and of this package, or the backward node that runs."""
    frame = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(("<", *_BETWEEN)) or "contextlib" in file or "functools" in file:
            frame = frame.f_back
            continue
        node = torch._C._current_autograd_node()
        where = f"{'/'.join(file.split(os.sep)[-2:])}:{frame.f_lineno} {frame.f_code.co_name}"
        # In the backward pass of torch's own operators the line is that of the call to `backward`.
        return node.name() if node is not None and frame.f_code.co_name != "backward" else where
    return "unknown"
