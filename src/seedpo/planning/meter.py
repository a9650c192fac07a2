"""What a computation costs, without doing it: FLOPs and live bytes of tensors on the meta device.

Meta tensors have a shape and a type but no data, so that a network of any size is run in seconds and in no memory.
Two things that a GPU does and the meta device does not are imitated: attention in one fused kernel, which keeps no
matrix of scores, and the casts of automatic mixed precision, which decide in what type an activation is kept.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

_BLOCK = 512
"""Bytes to which the allocator of CUDA rounds up."""

_IN_LOW_PRECISION = frozenset(
    {
        functional.linear,
        functional.conv2d,
        functional.scaled_dot_product_attention,
        torch.addmm,
        torch.baddbmm,
        torch.bmm,
        torch.matmul,
        Tensor.matmul,
    }
)
"""Functions that automatic mixed precision runs in half precision, of those that these networks call."""

_IN_FLOAT32 = frozenset(
    {functional.group_norm, functional.layer_norm, functional.softmax, torch.softmax, Tensor.softmax}
)
"""Functions that automatic mixed precision runs in float32, of those that these networks call."""


@dataclass(frozen=True, kw_only=True)
class Flops:
    """Floating-point operations, by what does them: in float32 the two run at different speeds.

    Attributes:
        convolution: of convolutions.
        product: of matrix products and attention.
    """

    convolution: Fraction = Fraction(0)
    product: Fraction = Fraction(0)

    @property
    def total(self) -> Fraction:
        """The sum."""
        return self.convolution + self.product

    def __add__(self, other: Flops) -> Flops:
        return Flops(convolution=self.convolution + other.convolution, product=self.product + other.product)

    def times(self, factor: Fraction | int) -> Flops:
        """Multiplied by a factor."""
        return Flops(convolution=self.convolution * factor, product=self.product * factor)


class Meter:
    """FLOPs and bytes of what is run inside :func:`metering`.

    FLOPs are those of matrix products, convolutions and attention, a multiply-add counted as two, as
    ``torch.utils.flop_counter`` counts them; what a fused attention kernel computes twice is counted once.

    ``FlopCounterMode`` itself is not used: what it remembers of each module keeps checkpointed activations alive.

    Attributes:
        bytes: storages that were made under the meter and are still alive, in bytes.
        peak: the most that ``bytes`` ever was.
        paused: whether storages are left out for now; FLOPs are counted all the same.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self.peak = 0
        self.paused = False
        self._convolution = 0
        self._product = 0
        self._known: set[int] = set()

    def flops(self) -> Flops:
        """FLOPs so far."""
        return Flops(convolution=Fraction(self._convolution), product=Fraction(self._product))

    def count(self, operator: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any) -> None:
        """Adds the FLOPs of one operator, if it is one of those that are counted."""
        formula: Any = flop_registry.get(operator.overloadpacket)
        if formula is None:
            return
        flops = int(formula(*args, **kwargs, out_val=result))
        if "convolution" in str(operator):
            self._convolution += flops
        else:
            self._product += flops

    def backward(self, loss: Tensor) -> None:
        """The gradients of a scalar.

        ``Tensor.backward`` is itself a function that the imitation of a GPU intercepts, and would run with it
        switched off: checkpointed layers would be recomputed in other number formats than at first.
        """
        engine = torch.autograd.Variable._execution_engine
        engine.run_backward((loss,), (torch.ones_like(loss),), False, False, (), True, True)

    def track(self, tensor: Tensor) -> None:
        """Counts a tensor's storage until it is freed; a storage that is known already is not counted again."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if self.paused or key in self._known:
            return
        size = -(-storage.nbytes() // _BLOCK) * _BLOCK
        self._known.add(key)
        self.bytes += size
        self.peak = max(self.peak, self.bytes)
        weakref.finalize(storage, self._free, key, size)

    def ignore(self, tensors: Sequence[Tensor]) -> None:
        """Leaves out storages that were there before, such as weights."""
        self._known |= {tensor.untyped_storage()._cdata for tensor in tensors}

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.bytes -= size


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, meter: Meter) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.meter = meter

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.meter.count(func, args, kwargs or {}, result)
        for value in result if isinstance(result, tuple | list) else (result,):
            if isinstance(value, Tensor):
                self.meter.track(value)
        return result


class _FusedAttention(torch.autograd.Function):
    """Attention as fused kernels keep it: queries, keys, values, output and one number per query for the backward."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, meter: Meter) -> Tensor:
        meter.paused = True
        output = (query @ key.transpose(-1, -2)) @ value
        meter.paused = False
        meter.track(output)
        ctx.save_for_backward(query, key, value, output, query.new_empty(query.shape[:-1], dtype=torch.float32))
        ctx.meter = meter
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, _, _ = ctx.saved_tensors
        gradient, meter = gradients[0], ctx.meter
        meter.paused = True
        scores = gradient @ value.transpose(-1, -2)
        results = (scores @ key, scores.transpose(-1, -2) @ query, scores.transpose(-1, -2) @ gradient)
        meter.paused = False
        for tensor in results:
            meter.track(tensor)
        return (*results, None)


class _LikeAGpu(TorchFunctionMode):
    """Fused attention, and the casts of automatic mixed precision if a low precision is given."""

    def __init__(self, meter: Meter, low: torch.dtype | None) -> None:
        super().__init__()
        self.meter = meter
        self.low = low

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if self.low is not None:
            dtype = self.low if func in _IN_LOW_PRECISION else torch.float32 if func in _IN_FLOAT32 else None
            if dtype is not None:
                args = [_cast(value, dtype) for value in args]
                kwargs = {name: _cast(value, dtype) for name, value in kwargs.items()}
        if func is functional.scaled_dot_product_attention:
            named = dict(zip(("query", "key", "value"), args, strict=False)) | kwargs
            query, key, value = (named[name] for name in ("query", "key", "value"))
            if key.shape[-3] != query.shape[-3]:  # heads share keys, which kernels do not copy
                self.meter.paused = True
                key, value = (part.repeat_interleave(query.shape[-3] // part.shape[-3], -3) for part in (key, value))
                self.meter.paused = False
            return _FusedAttention.apply(query, key, value, self.meter)  # type: ignore[no-untyped-call]
        return func(*args, **kwargs)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


@contextmanager
def metering(*, known: Sequence[Tensor] = (), low: torch.dtype | None = None) -> Iterator[Meter]:
    """Measures what is run on meta tensors inside.

    Args:
        known: tensors that were there before and are not to be counted, such as weights.
        low: number format of automatic mixed precision; `None` if everything runs in its own format.
    """
    meter = Meter()
    meter.ignore(known)
    with ExitStack() as modes:
        for mode in (_Counting(meter), _LikeAGpu(meter, low)):
            modes.enter_context(mode)
        yield meter
