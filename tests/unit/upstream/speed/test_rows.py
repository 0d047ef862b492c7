"""Columns moved by one operation are those that verl makes row by row, to the last bit, and so are their gradients."""

import importlib

import pytest
import torch
import verl  # noqa: F401  loads the plugin
from tensordict import TensorDict
from torch.utils._python_dispatch import TorchDispatchMode
from verl.utils import tensordict_utils as tu
from verl.workers.utils import padding

from verl_relift.upstream.speed.rows import is_plain, places, starts_of, take_rows

LENGTHS = [5, 1, 9, 4, 4, 12, 2]


class Counter(TorchDispatchMode):
    """Counts the operations of torch."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.calls += 1
        return function(*args, **(kwargs or {}))


def operations_a_row(call) -> float:
    """How many more operations `call(rows)` makes for each row more."""
    counts = []
    for rows in (8, 24):
        run = call(rows)
        with Counter() as counter:
            run()
        counts.append(counter.calls)
    return (counts[1] - counts[0]) / 16


def jagged(rows: list[torch.Tensor]) -> torch.Tensor:
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


def column(lengths: list[int], dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return jagged([torch.randint(1, 1000, (n,), generator=generator).to(dtype) for n in lengths])


def rows(nested: torch.Tensor) -> list[list[float]]:
    return [row.tolist() for row in nested.unbind()]


def test_places_of_rows_that_lie_apart():
    lengths = torch.tensor([2, 0, 3])
    assert starts_of(lengths).tolist() == [0, 2, 2, 5]
    assert places(torch.tensor([4, 9, 0]), lengths).tolist() == [4, 5, 0, 1, 2]


@pytest.mark.parametrize("chosen", [[3, 0, 3], [6], [0, 1, 2, 3, 4, 5, 6], [1, 1]])
@pytest.mark.parametrize("as_tensor", [True, False])
def test_selected_rows_are_verls(chosen, as_tensor):
    batch = tu.get_tensordict(
        {
            "ids": column(LENGTHS, torch.int64),
            "values": column([3, 0, 2, 8, 1, 1, 7], seed=1),
            "positions": torch.nested.nested_tensor_from_jagged(
                torch.arange(74).view(37, 2), starts_of(torch.tensor(LENGTHS))
            ),
            "dense": torch.arange(7.0),
            "names": list("abcdefg"),
        },
        {"temperature": 0.7},
    )
    indices = torch.tensor(chosen) if as_tensor else chosen
    select = tu.index_select_tensor_dict
    ours, theirs = select(batch, indices), select.__wrapped__(batch, indices)
    assert ours.batch_size == theirs.batch_size and set(ours.keys()) == set(theirs.keys())
    for name in ("ids", "values"):
        assert is_plain(ours[name]) and rows(ours[name]) == rows(theirs[name])
        assert ours[name].dtype == theirs[name].dtype
        assert torch.equal(ours[name].to_padded_tensor(0), theirs[name].to_padded_tensor(0))
    assert [row.tolist() for row in ours["positions"].unbind()] == [
        row.tolist() for row in theirs["positions"].unbind()
    ]
    assert ours["dense"].tolist() == theirs["dense"].tolist()
    assert tu.get(ours, "names") == tu.get(theirs, "names") and ours["temperature"] == 0.7


def test_nothing_to_select_from():
    assert tu.index_select_tensor_dict(None, [0]) is None
    dense = TensorDict({"a": torch.arange(3)}, batch_size=3)
    assert tu.index_select_tensor_dict(dense, [2, 0])["a"].tolist() == [2, 0]


def test_the_selection_does_not_alias_the_batch():
    nested = column(LENGTHS)
    before = nested.values().clone()
    take_rows(nested, torch.arange(len(LENGTHS))).values().zero_()
    assert torch.equal(nested.values(), before)


@pytest.fixture(params=[1, 2, 4], ids="tp{}".format)
def util(request, monkeypatch):
    """verl's packing, with this many tensor-parallel ranks: sequences are padded to a multiple of them."""
    module = importlib.import_module("verl.models.mcore.util")
    monkeypatch.setattr(module.mpu, "get_tensor_model_parallel_world_size", lambda: request.param)
    monkeypatch.setattr(module.mpu, "get_context_parallel_world_size", lambda: 1)
    monkeypatch.setattr(module.mpu, "get_context_parallel_rank", lambda: 0)
    monkeypatch.setattr(module.mpu, "get_context_parallel_group", lambda: None)
    return module


@pytest.mark.parametrize("settings", [{}, {"need_roll": True}, {"pad_to_length_bucket": 16}, {"min_local_rows": 64}])
def test_packed_sequences_are_verls(util, settings):
    ids = column(LENGTHS, torch.int64)
    ours, theirs = (
        pack(ids, **settings) for pack in (util.preprocess_thd_engine, util.preprocess_thd_engine.__wrapped__)
    )
    assert torch.equal(ours[0], theirs[0]) and ours[0].dtype == theirs[0].dtype
    assert torch.equal(ours[2], theirs[2])
    for name in ("cu_seqlens_q", "cu_seqlens_kv", "cu_seqlens_q_padded", "cu_seqlens_kv_padded"):
        assert torch.equal(getattr(ours[1], name), getattr(theirs[1], name))
    assert (ours[1].max_seqlen_q, ours[1].qkv_format) == (theirs[1].max_seqlen_q, "thd")


def test_later_pipeline_stages_get_what_they_gave(util):
    ids = column(LENGTHS, torch.int64)
    assert util.preprocess_thd_engine(ids, pre_process=False)[0] is ids


def test_unpacked_output_and_its_gradient_are_verls(util):
    ids = column(LENGTHS, torch.int64)
    packed, params, _ = util.preprocess_thd_engine(ids)
    found = []
    for unpack in (util.postprocess_thd_engine, util.postprocess_thd_engine.__wrapped__):
        output = (0.3 * packed.float()).requires_grad_()
        nested = unpack(output, params, ids, len(LENGTHS))
        (nested.values() ** 2).sum().backward()
        found.append((nested.detach(), output.grad))
    assert rows(found[0][0]) == rows(found[1][0]) and torch.equal(found[0][1], found[1][1])
    assert torch.equal(found[0][0].to_padded_tensor(0), found[1][0].to_padded_tensor(0))
    output = torch.ones(1)
    assert util.postprocess_thd_engine(output, params, ids, len(LENGTHS), post_process=False) is output


@pytest.mark.parametrize("width", [None, 6, 20])
@pytest.mark.parametrize("trailing", [(), (3,)])
@pytest.mark.parametrize("nested", [True, False])
def test_padded_responses_and_their_gradient_are_verls(width, trailing, nested):
    responses = [4, 0, 12, 1, 3, 7, 2]
    data = tu.get_tensordict(
        {"prompts": column(LENGTHS, torch.int64), "responses": column(responses, torch.int64)},
        {} if width is None else {"max_response_len": width},
    )
    total = sum(LENGTHS) + sum(responses)
    found = []
    for pad in (padding.no_padding_2_padding, padding.no_padding_2_padding.__wrapped__):
        values = torch.randn(total, *trailing, generator=torch.Generator().manual_seed(1)).requires_grad_()
        starts = starts_of(torch.tensor(LENGTHS) + torch.tensor(responses))
        output = pad(torch.nested.nested_tensor_from_jagged(values, starts) if nested else values, data)
        (output**2).sum().backward()
        found.append((output.detach(), values.grad))
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])


def test_what_does_not_fit_is_refused_as_by_verl():
    data = tu.get_tensordict({"prompts": column([2, 3]), "responses": column([1, 1])}, {})
    with pytest.raises(AssertionError):
        padding.no_padding_2_padding(torch.zeros(8), data)
    data = tu.get_tensordict({"prompts": column([2, 0]), "responses": column([1, 1])}, {})
    with pytest.raises(AssertionError, match="prompt_len > 0"):
        padding.no_padding_2_padding(torch.zeros(4), data)


@pytest.mark.parametrize(("rows", "ranks", "equal_size"), [(24, 1, True), (24, 4, True), (23, 4, False)])
def test_rows_are_shared_out_as_by_verl(rows, ranks, equal_size):
    """A tensor of workloads, which the trainer has, is balanced as verl's function does it, without its operations."""
    from verl.utils import seqlen_balancing

    lengths = torch.randint(1, 50, (rows,), generator=torch.Generator().manual_seed(1))
    workloads = seqlen_balancing.calculate_workload(lengths)
    with Counter() as counter:
        ours = seqlen_balancing.get_seqlen_balanced_partitions(workloads, ranks, equal_size)
    assert counter.calls < rows
    theirs = seqlen_balancing.karmarkar_karp.__wrapped__(workloads, ranks, equal_size)
    assert ours == [sorted(part) for part in theirs]


def test_verl_still_selects_row_by_row():
    """The day this fails, `select_at_once` can go."""

    def call(select):
        def of_rows(count: int):
            batch = tu.get_tensordict({"ids": column([4] * count)}, {})
            return lambda: select(batch, list(range(count)))

        return operations_a_row(of_rows)

    assert call(tu.index_select_tensor_dict) < 1 <= call(tu.index_select_tensor_dict.__wrapped__)


def test_verl_still_packs_and_unpacks_row_by_row(util):
    """The day this fails, `pack_at_once` can lose a half."""

    def packing(pack):
        def of_rows(count: int):
            ids = column([4] * count, torch.int64)
            return lambda: pack(ids)

        return operations_a_row(of_rows)

    def unpacking(unpack):
        def of_rows(count: int):
            ids = column([4] * count, torch.int64)
            packed, params, _ = util.preprocess_thd_engine(ids)
            return lambda: unpack(packed.float(), params, ids, count)

        return operations_a_row(of_rows)

    pack, unpack = util.preprocess_thd_engine, util.postprocess_thd_engine
    assert packing(pack) < packing(pack.__wrapped__) - 1
    assert unpacking(unpack) < 1 <= unpacking(unpack.__wrapped__)


def test_verl_still_pads_row_by_row():
    """The day this fails, `pad_at_once` can go."""

    def call(pad):
        def of_rows(count: int):
            data = tu.get_tensordict(
                {"prompts": column([4] * count, torch.int64), "responses": column([3] * count, torch.int64)}, {}
            )
            values = torch.zeros(7 * count)
            return lambda: pad(values, data)

        return operations_a_row(of_rows)

    assert call(padding.no_padding_2_padding) < 1 <= call(padding.no_padding_2_padding.__wrapped__)


def test_verl_still_balances_tensors_of_one_element():
    """The day this fails, `balance_numbers` can go."""
    from verl.utils import seqlen_balancing

    def of_rows(count: int):
        workloads = torch.arange(1, count + 1)
        return lambda: seqlen_balancing.karmarkar_karp.__wrapped__(workloads, 2, True)

    assert operations_a_row(of_rows) >= 1
