"""verl handles the rows of an unpadded batch one by one; here a column is moved by one operation.

The values are the same, to the last bit. What only context parallelism needs is left to verl.
"""

import functools
from types import ModuleType

import torch
from tensordict import TensorDict
from torch import Tensor

from ..registry import Where, patch, replace


def is_plain(column: object) -> bool:
    """Whether it is a jagged tensor [rows, *] whose rows lie end to end."""
    return (
        isinstance(column, Tensor)
        and column.is_nested
        and column.layout == torch.jagged
        and column.dim() == 2
        and column.lengths() is None
    )


def starts_of(lengths: Tensor) -> Tensor:
    """[rows] -> [rows + 1] int64: where rows that lie end to end begin, and where the last one ends."""
    return torch.nn.functional.pad(lengths.long().cumsum(0), (1, 0))


def places(starts: Tensor, lengths: Tensor) -> Tensor:
    """[tokens] int64: the place of every element of rows that begin at `starts` [rows], row by row."""
    within = torch.arange(int(lengths.sum()), device=starts.device)
    return within + (starts.long() - starts_of(lengths)[:-1]).repeat_interleave(lengths)


def column_of(values: Tensor, lengths: Tensor) -> Tensor:
    """`values` [tokens, ...], rows of `lengths` [rows] end to end, as a jagged tensor [rows, *, ...]."""
    # Without the longest length, torch pads a row to as many elements as there are in all rows.
    shortest, longest = (int(length) for length in lengths.aminmax())
    return torch.nested.nested_tensor_from_jagged(values, starts_of(lengths), min_seqlen=shortest, max_seqlen=longest)


def take_rows(column: Tensor, rows: Tensor) -> Tensor:
    """Those `rows` of a plain column, in that order."""
    lengths = column.offsets().diff()[rows]
    return column_of(column.values()[places(column.offsets()[:-1][rows], lengths)], lengths)


@patch(
    where=Where.EVERYWHERE,
    replaces=("verl.utils.tensordict_utils:index_select_tensor_dict",),
    versions=("verl",),
    upstream="cuts a micro-batch out of the batch row by row",
    canary="test_verl_still_selects_row_by_row",
)
def select_at_once(module: ModuleType) -> None:
    select = module.index_select_tensor_dict

    @functools.wraps(select)
    def index_select_tensor_dict(batch: TensorDict | None, indices: Tensor | list[int]) -> TensorDict | None:
        plain = [name for name, column in batch.items() if is_plain(column)] if batch is not None else []
        if not plain:
            return select(batch, indices)
        rows = torch.as_tensor(indices, device=batch[plain[0]].device)
        selected = select(batch.exclude(*plain), indices)
        for name in plain:
            selected[name] = take_rows(batch[name], rows)
        return selected

    replace(module, "index_select_tensor_dict", index_select_tensor_dict)


@patch(
    where=Where.EVERYWHERE,
    replaces=(
        "verl.models.mcore.util:preprocess_thd_engine",
        "verl.models.mcore.util:postprocess_thd_engine",
    ),
    versions=("verl",),
    upstream="packs and unpacks a micro-batch row by row; for each row the backward pass adds up a tensor of the "
    "micro-batch's size",
    canary="test_verl_still_packs_and_unpacks_row_by_row",
)
def pack_at_once(module: ModuleType) -> None:
    pack, unpack, mpu = module.preprocess_thd_engine, module.postprocess_thd_engine, module.mpu

    def is_split(local_cp_size: int | None, cp_layout: str) -> bool:
        return local_cp_size is not None or cp_layout != "zigzag" or mpu.get_context_parallel_world_size() > 1

    @functools.wraps(pack)
    def preprocess_thd_engine(
        input_ids: Tensor,
        pre_process: bool = True,
        need_roll: bool = False,
        *args,
        local_cp_size: int | None = None,
        cp_layout: str = "zigzag",
        **kwargs,
    ):
        settings = {"local_cp_size": local_cp_size, "cp_layout": cp_layout, **kwargs}
        if not pre_process or args or not is_plain(input_ids) or is_split(local_cp_size, cp_layout):
            return pack(input_ids, pre_process, need_roll, *args, **settings)
        # On stages behind the first it works out where the sequences lie, and moves nothing.
        _, params, _ = pack(input_ids, False, need_roll, **settings)
        values, lengths = input_ids.values(), input_ids.offsets().diff()
        where = places(params.cu_seqlens_q_padded[:-1], lengths)
        packed = values.new_zeros(int(params.cu_seqlens_q_padded[-1]), *values.shape[1:])
        positions = torch.zeros(len(packed), dtype=torch.long, device=values.device)
        packed[where] = values
        positions[where] = places(torch.zeros_like(lengths), lengths)
        if need_roll:  # over all of them: the last token of a sequence has no successor that counts
            packed, positions = packed.roll(-1, 0), positions.roll(-1, 0)
        return packed.unsqueeze(0), params, positions.unsqueeze(0)

    @functools.wraps(unpack)
    def postprocess_thd_engine(
        output: Tensor,
        packed_seq_params,
        input_ids: Tensor,
        batch_size: int,
        post_process: bool = True,
        local_cp_size: int | None = None,
        cp_layout: str = "zigzag",
    ) -> Tensor:
        if not post_process or not is_plain(input_ids) or is_split(local_cp_size, cp_layout):
            return unpack(output, packed_seq_params, input_ids, batch_size, post_process, local_cp_size, cp_layout)
        lengths = input_ids.offsets().diff()
        where = places(packed_seq_params.cu_seqlens_q_padded[:-1], lengths)
        return column_of(output[0].index_select(0, where), lengths)

    replace(module, "preprocess_thd_engine", preprocess_thd_engine)
    replace(module, "postprocess_thd_engine", postprocess_thd_engine)


@patch(
    where=Where.EVERYWHERE,
    replaces=("verl.workers.utils.padding:no_padding_2_padding",),
    versions=("verl",),
    upstream="pads the responses row by row",
    canary="test_verl_still_pads_row_by_row",
)
def pad_at_once(module: ModuleType) -> None:
    pad = module.no_padding_2_padding

    @functools.wraps(pad)
    def no_padding_2_padding(tensor: Tensor, data: TensorDict) -> Tensor:
        prompts, responses = data["prompts"], data["responses"]
        if not (is_plain(prompts) and is_plain(responses)):
            return pad(tensor, data)
        values = tensor.values() if tensor.is_nested else tensor
        before, lengths = prompts.offsets().diff(), responses.offsets().diff()
        ends = (before + lengths).cumsum(0)
        if int(ends[-1]) != len(values) or not bool(before.all()):
            return pad(tensor, data)  # which says what is wrong
        width = module.tu.get_non_tensor_data(data=data, key="max_response_len", default=-1)
        columns = torch.arange(int(lengths.max()) if width < 0 else width, device=values.device)
        # The output at a token is about the next one.
        where = ((ends - lengths - 1)[:, None] + columns).clamp(max=len(values) - 1)
        missing = (columns >= lengths[:, None]).reshape(*where.shape, *[1] * (values.ndim - 1))
        return values[where].masked_fill(missing, 0)

    replace(module, "no_padding_2_padding", no_padding_2_padding)


@patch(
    where=Where.EVERYWHERE,
    replaces=("verl.utils.seqlen_balancing:karmarkar_karp",),
    versions=("verl",),
    upstream="shares the rows out among the ranks by comparing elements of a tensor, an operation of torch for each",
    canary="test_verl_still_balances_tensors_of_one_element",
)
def balance_numbers(module: ModuleType) -> None:
    partition = module.karmarkar_karp

    @functools.wraps(partition)
    def karmarkar_karp(seqlen_list: list[int] | Tensor, k_partitions: int, equal_size: bool) -> list[list[int]]:
        # Of a tensor's elements every comparison and sum would be a call of torch.
        numbers = seqlen_list.tolist() if isinstance(seqlen_list, Tensor) else seqlen_list
        return partition(numbers, k_partitions, equal_size)

    replace(module, "karmarkar_karp", karmarkar_karp)
