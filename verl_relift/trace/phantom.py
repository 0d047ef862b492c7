"""Tensors without memory: large floating-point tensors are meta tensors, everything else is real.

Two modes of torch do it, and of functions only `torch.compile` is replaced, while they are active:

* `_Dispatch` (a `TorchDispatchMode`) lets factories make meta tensors, moves real tensors that meet one to the meta
  device, answers when a value is asked for, and tells `Memory` of every new storage;
* `_Pretend` (a `TorchFunctionMode`) lets meta tensors say that they are on the CPU, where the training engine's code
  compares devices, and gives attention and norms a kernel's memory.

Integers are real, so that lengths, masks and indices have values.

The engine runs as on a CPU, so the device that it computes on and host memory are both called "cpu". What tells them
apart is how they are named: the engine's own device comes as a `torch.device`, host memory as the string "cpu" or by
`Tensor.cpu()`.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch.nested._internal.nested_tensor import NestedTensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

from .memory import Memory, Place

SMALL = 64  # elements; a factory's tensor with fewer is real, if the factory fills it
_TYPE = torch.Tensor.type
_CPU, _META = torch.device("cpu"), torch.device("meta")

_FACTORIES = {
    f"aten::{prefix}{name}{suffix}"
    for name in ("empty", "zeros", "ones", "full", "rand", "randn")
    for prefix, suffix in (("", ""), ("new_", ""), ("", "_like"))
} | {"aten::empty_strided", "aten::new_empty_strided"}
_TO_JAGGED = torch.ops.aten._padded_dense_to_jagged_forward.default  # which torch has for no meta tensor
_VALUES = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.item.default}


def is_phantom(value: Any) -> bool:
    """Return whether `value` is a tensor without memory."""
    return isinstance(value, torch.Tensor) and value.is_meta


class _Dispatch(TorchDispatchMode):
    def __init__(self, memory: Memory, pretend: "_Pretend"):
        super().__init__()
        self._memory, self.pretend = memory, pretend
        self.received_shape: list[int] | None = None  # what another pipeline stage says of the tensors that it sends

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(issubclass(kind, NestedTensor) for kind in types):
            # It comes back with what is inside. It compares devices, for which both modes must be on again.
            with self, self.pretend:
                return NestedTensor.__torch_dispatch__(func, types, args, kwargs)
        with torch._C.DisableTorchFunction():
            return self._run(func, args, dict(kwargs or {}))

    def _run(self, func, args: tuple, kwargs: dict):
        flat, _ = tree_flatten((args, kwargs))
        tensors = [value for value in flat if isinstance(value, torch.Tensor)]
        phantoms = [tensor for tensor in tensors if tensor.is_meta]
        if func.namespace == "c10d":
            return self._communicate(func, args, kwargs, bool(phantoms))
        if not phantoms:
            return self._make(func, args, kwargs, tensors)
        if func in _VALUES:
            return 1.0 if phantoms[0].is_floating_point() else 1
        if func is _TO_JAGGED:
            return self._seen(_to_jagged(*args, **kwargs), self._memory.place_of(phantoms[0]))
        if func._schema.is_mutable and isinstance(args[0], torch.Tensor) and not args[0].is_meta:
            return args[0]  # a real tensor would get values that there are not
        if kwargs.get("device") is not None:
            kwargs["device"] = _META
        kwargs.pop("pin_memory", None)
        args, kwargs = tree_map_only(torch.Tensor, _to_meta, (_with_known_size(func, args), kwargs))
        return self._seen(func(*args, **kwargs), self._memory.place_of(phantoms[0]))

    def _make(self, func, args: tuple, kwargs: dict, tensors: list[torch.Tensor]):
        """Run an operator on real tensors, or on none."""
        if func._schema.name in _FACTORIES:
            like = func(*args, **{**kwargs, "device": _META, "pin_memory": None})
            if like.is_floating_point() and (like.numel() >= SMALL or "empty" in func._schema.name):
                return self._seen(like, None)
        return func(*args, **kwargs)

    def _communicate(self, func, args: tuple, kwargs: dict, phantom: bool):
        """Leave out a collective among phantoms, whose outputs the caller has allocated."""
        if not phantom:
            result = func(*args, **kwargs)
            if func is torch.ops.c10d.recv_.default and self.received_shape is not None:
                for tensor in args[0]:
                    tensor.copy_(torch.tensor(self.received_shape))
            return result
        from torch._C._distributed_c10d import FakeWork

        work = FakeWork().boxed()
        return work if len(func._schema.returns) == 1 else (args[0], work)

    def _seen(self, result, made_from: Place | None):
        for value in tree_flatten(result)[0]:
            if is_phantom(value):
                self._memory.see(value, made_from)
        return result


def _to_jagged(dense: torch.Tensor, offsets: list[torch.Tensor], total_L: int | None = None) -> torch.Tensor:
    rows = int(offsets[0][-1]) if total_L is None else total_L
    return dense.new_empty((rows, *dense.shape[2:]), device=_META)


def _to_meta(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.is_meta else tensor.to(_META)


def _with_known_size(func, args: tuple) -> tuple:
    """Replace a mask in an index by places, whose number a meta tensor would not know.

    A mask without values selects all.
    """
    if func._schema.name not in ("aten::index", "aten::index_put", "aten::index_put_"):
        return args
    places: list[torch.Tensor | None] = []
    for index in args[1]:
        if index is None or index.dtype != torch.bool:
            places.append(index)
        else:
            known = torch.ones(index.shape, dtype=torch.bool) if index.is_meta else index
            places += known.nonzero().unbind(1)
    return (args[0], places, *args[2:])


class _Flash(torch.autograd.Function):
    """Attention as a fused kernel leaves memory: inputs, output, and one number per query and head."""

    @staticmethod
    def forward(ctx, query, key, value):
        out = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, out, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx, gradient):
        query, key, value, *_ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


class _Normalize(torch.autograd.Function):
    """A norm over the last dimension as a fused kernel leaves memory: the input, and one number per row."""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight, x.new_empty(x.shape[:-1], dtype=torch.float32))
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx, gradient):
        x, weight, _ = ctx.saved_tensors
        return torch.empty_like(x), torch.empty_like(weight)


def normalize(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the RMS norm of `x`, of its shape, keeping for its backward pass what a fused kernel keeps."""
    return _Normalize.apply(x, weight)


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Return attention's output, of the shape of `query`, keeping for its backward pass what a fused kernel keeps."""
    return _Flash.apply(query, key, value)


class _Pretend(TorchFunctionMode):
    def __init__(self, memory: Memory, cuda: bool):
        super().__init__()
        self._memory = memory
        self._special: dict[Any, Callable] = {
            torch.Tensor.device.__get__: self._device,
            torch.Tensor.to: self._to,
            torch.Tensor.cpu: self._to_host,
            torch.Tensor.cuda: self._to_device,
            F.scaled_dot_product_attention: self._attend,
        }
        if cuda:
            self._special[F.rms_norm] = self._normalize

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.tensor:  # it reads values without asking the dispatcher
            args = tree_map_only(torch.Tensor, lambda value: 1.0 if is_phantom(value) else value, args)
        # As it is now: while Megatron checks types, a patch of this project stands in the place of `Tensor.type`.
        special = self._type if func is torch.Tensor.type else self._special.get(func)
        if special is not None and args and isinstance(args[0], torch.Tensor):
            return special(func, *args, **kwargs)
        if isinstance(kwargs.get("device"), str) and torch.device(kwargs["device"]).type == "cpu":
            with self._memory.of(place=Place.HOST):
                return func(*args, **kwargs)
        return func(*args, **kwargs)

    def _device(self, func, tensor):
        device = func(tensor)
        return _CPU if device.type == "meta" else device

    def _type(self, func, tensor, *args, **kwargs):
        answer = _TYPE(tensor, *args, **kwargs)
        return answer.replace("torch.meta.", "torch.") if isinstance(answer, str) else answer

    def _to_host(self, func, tensor, *args, **kwargs):
        if not is_phantom(tensor) or self._memory.place_of(tensor) is Place.HOST:
            return tensor if is_phantom(tensor) else func(tensor, *args, **kwargs)
        with self._memory.of(place=Place.HOST):
            return tensor.clone()

    def _to_device(self, func, tensor, *args, **kwargs):
        if not is_phantom(tensor) or self._memory.place_of(tensor) is Place.DEVICE:
            return tensor
        with self._memory.of(place=Place.DEVICE):
            return tensor.clone()

    def _to(self, func, tensor, *args, **kwargs):
        device = kwargs.get("device", args[0] if args else None)
        if not is_phantom(tensor) or isinstance(device, torch.dtype | torch.Tensor | None):
            return func(tensor, *args, **kwargs)
        moved = self._to_host(None, tensor) if isinstance(device, str) else self._to_device(None, tensor)
        kwargs = {name: value for name, value in kwargs.items() if name != "device"}
        args = args if "device" in kwargs else args[1:]
        return func(moved, *args, **kwargs) if args or "dtype" in kwargs else moved

    def _attend(self, func, query, key, value, *args, **kwargs):
        return attend(query, key, value) if is_phantom(query) else func(query, key, value, *args, **kwargs)

    def _normalize(self, func, x, shape, weight=None, eps=None):
        return normalize(x, weight) if is_phantom(x) else func(x, shape, weight, eps)


class Phantoms:
    """The two modes with their memory."""

    def __init__(self, cuda: bool = True):
        """
        Args:
            cuda: whether norms and compiled functions are kernels, as on CUDA; otherwise they are what torch makes of
                them on a CPU.
        """
        self.memory = Memory()
        self._cuda = cuda
        self._pretend = _Pretend(self.memory, cuda)
        self._dispatch = _Dispatch(self.memory, self._pretend)

    @contextmanager
    def active(self) -> Iterator[Memory]:
        """Let tensors be phantoms, and compiled functions keep nothing but their results."""
        with ExitStack() as stack:
            stack.enter_context(self._dispatch)
            stack.enter_context(self._pretend)
            if self._cuda:
                compile_before, torch.compile = torch.compile, self._compile
                stack.callback(setattr, torch, "compile", compile_before)
            yield self.memory

    def receive(self, shape: list[int]) -> None:
        """Let other pipeline stages announce tensors of this shape."""
        self._dispatch.received_shape = shape

    def _compile(self, function: Callable | None = None, **settings):
        """In place of `torch.compile` while active: a fused kernel has no intermediate results in memory."""
        if function is None:
            return lambda function: self._compile(function, **settings)

        def compiled(*args, **kwargs):
            with self.memory.uncounted():
                result = function(*args, **kwargs)
            return self._dispatch._seen(result, None)

        return compiled
