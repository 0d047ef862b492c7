"""Bytes by part and place, and their peaks, with meta tensors."""

import gc

import torch

from verl_relift.trace.memory import Memory, Place

MIB = 1 << 20


def tensor(mib: int) -> torch.Tensor:
    return torch.empty(mib * MIB, dtype=torch.uint8, device="meta")


def seen(memory: Memory, mib: int, made_from: Place | None = None) -> torch.Tensor:
    one = tensor(mib)
    memory.see(one, made_from)
    return one


def test_a_peak_is_what_was_alive_at_one_time():
    memory = Memory()
    with memory.phase("step"):
        first = seen(memory, 4)
        second = seen(memory, 2)
        del first
        third = seen(memory, 3)
    assert memory.total() == 5 * MIB
    assert memory.peaks["step"][Place.DEVICE].total == 6 * MIB
    assert sum(memory.peaks["step"][Place.DEVICE].live.values()) == 6 * MIB
    del second, third
    assert memory.total() == 0


def test_parts_at_the_peak():
    memory = Memory()
    with memory.phase("step"):
        with memory.of("weights"):
            weights = seen(memory, 4)
        with memory.of("logits"):
            del_later = seen(memory, 8)
        assert memory.peaks["step"][Place.DEVICE].total == 12 * MIB
        del del_later
        memory.rename(weights, "parameters")
        kept = seen(memory, 1)
    assert memory.peaks["step"][Place.DEVICE].by_part() == {"weights": 4 * MIB, "logits": 8 * MIB}
    with memory.phase("next"):
        pass
    assert memory.peaks["next"][Place.DEVICE].by_part() == {"parameters": 4 * MIB, "other": 1 * MIB}
    del weights, kept


def test_a_view_counts_once_and_keeps_its_storage():
    memory = Memory()
    one = seen(memory, 2)
    view = one[:10]
    memory.see(view, None)
    del one
    gc.collect()
    assert memory.total() == 2 * MIB
    del view
    assert memory.total() == 0


def test_places():
    memory = Memory()
    with memory.phase("save"):
        device = seen(memory, 2)
        with memory.of(place=Place.HOST):
            host = seen(memory, 4)
        copy = seen(memory, 1, made_from=memory.place_of(host))
    assert {place: peak.total for place, peak in memory.peaks["save"].items()} == {
        Place.DEVICE: 2 * MIB,
        Place.HOST: 5 * MIB,
    }
    assert memory.place_of(device) is Place.DEVICE
    assert memory.place_of(tensor(1)) is None
    del host, copy


def test_what_a_compiled_function_holds_in_between_is_not_counted():
    memory = Memory()
    with memory.phase("step"), memory.uncounted():
        between = seen(memory, 4)
    assert memory.peaks["step"][Place.DEVICE].total == 0
    del between


def test_a_large_allocation_has_the_line_that_made_it():
    memory = Memory()
    kept = seen(memory, 2)
    small = torch.empty(8, device="meta")
    memory.see(small, None)
    with memory.phase("step"):
        pass
    sites = {allocation.site for allocation in memory.peaks["step"][Place.DEVICE].live}
    assert "small tensors" in sites
    assert any(site.startswith("trace/test_memory.py:") and site.endswith(" seen") for site in sites)
    del kept
