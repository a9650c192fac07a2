"""Two ways to do the same work, run in turns: processor time, peak memory and the same result."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from diffusers import SD3Transformer2DModel, UNet2DConditionModel
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.memory import peak_bytes


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The same work in the published structure and in ours.

    Attributes:
        name: of the case.
        work: what is done, in words.
        bar: ratio of times that is expected at least; none: nothing is expected.
        published: does the work once and returns its result: the gradient, or the scores of images.
        ours: the same.
        networks: what each has on the device, published first; the calls of the denoising networks among them are
            counted.
        tolerance: of the result, in float32: norm of the difference relative to the norm. Both compute the same
            sums in another order and in batches of another size, for which oneDNN takes other kernels.
        memory_bar: ratio of peak memory, ours to published, that is expected at most; none: nothing is expected.
    """

    name: str
    work: str
    bar: float | None
    published: Callable[[], Tensor]
    ours: Callable[[], Tensor]
    networks: tuple[list[nn.Module], list[nn.Module]]
    tolerance: float = 1e-3
    memory_bar: float | None = None


def compare(case: Comparison, *, repetitions: int, on_round: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Runs both in turns and checks at every turn that they give the same result.

    The first turn warms up and is not counted. Seconds are those of the processor, all threads added, so that other
    work on the machine counts less; seconds on the clock are kept beside them. Memory and FLOPs are measured in turns
    of their own, since watching them takes time.

    Raises:
        AssertionError: if the results differ.
    """
    seconds: dict[str, list[float]] = {"published": [], "ours": []}
    clock: dict[str, list[float]] = {"published": [], "ours": []}
    rows: dict[str, int] = {}
    error = 0.0
    for turn in range(repetitions + 1):
        results = {}
        for (name, work), networks in zip(
            (("published", case.published), ("ours", case.ours)), case.networks, strict=True
        ):
            with counted(networks) as count:
                started, began = time.process_time(), time.perf_counter()
                results[name] = work()
                if turn:
                    seconds[name].append(time.process_time() - started)
                    clock[name].append(time.perf_counter() - began)
            rows[name] = count[0]
        error = max(error, difference(results["published"], results["ours"]))
        if not error <= case.tolerance:
            raise AssertionError(f"{case.name}: the results differ by {error:.2e} of their norm")
        on_round()
    memory = {
        "published": peak_bytes(case.published, case.networks[0]),
        "ours": peak_bytes(case.ours, case.networks[1]),
    }
    on_round()
    operations = {"published": flops(case.published), "ours": flops(case.ours)}
    on_round()
    ratios = [one / other for one, other in zip(seconds["published"], seconds["ours"], strict=True)]
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "name": case.name,
        "work": case.work,
        "bar": case.bar,
        "seconds": medians,
        "ratio": medians["published"] / medians["ours"],
        "ratio_range": [min(ratios), max(ratios)],
        "clock_ratio": statistics.median(clock["published"]) / statistics.median(clock["ours"]),
        "flops": operations,
        "rows": rows,
        "difference": error,
        "repetitions": repetitions,
        "memory_bytes": memory,
        "memory_ratio": memory["ours"] / memory["published"],
        "memory_bar": case.memory_bar,
    }


def flops(work: Callable[[], object]) -> int:
    """Floating-point operations of matrix products, convolutions and attention, a multiply-add counted as two."""
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def difference(one: Tensor, other: Tensor) -> float:
    """Norm of the difference of two results, relative to their norm."""
    if not float(one.norm()) > 0:
        return float("nan")
    return float((one.double() - other.double()).norm() / one.double().norm())


@contextmanager
def counted(networks: list[nn.Module]) -> Iterator[list[int]]:
    """Rows that reach denoising networks inside."""
    count = [0]

    def hook(module: Any, given: tuple[Tensor, ...], options: dict[str, Any]) -> None:
        count[0] += len(given[0] if given else options["hidden_states"])

    denoising = [network for network in networks if isinstance(network, (UNet2DConditionModel, SD3Transformer2DModel))]
    handles = [network.register_forward_pre_hook(hook, with_kwargs=True) for network in denoising]
    try:
        yield count
    finally:
        for handle in handles:
            handle.remove()
