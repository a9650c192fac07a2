"""The figures of an optimiser step, over all processes, from the loss and metrics of every pair."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from seedpo.core.types import LossOutput


@dataclass(frozen=True, kw_only=True)
class ProcessRows:
    """What one process saw in one step.

    Attributes:
        losses: the loss of each pair, one list per micro-batch.
        weights: what each loss counts in the mean, like ``losses``.
        metrics: the value of each pair, by metric; micro-batches joined.
        spreads: metrics whose standard deviation is logged too.
        stop: whether this process was asked to stop.
    """

    losses: list[list[float]]
    weights: list[list[float]]
    metrics: dict[str, list[float]]
    spreads: tuple[str, ...]
    stop: bool


def check_output(output: LossOutput) -> None:
    """Checks that a method returned one loss, and one value of each metric, per pair.

    Raises:
        ValueError: naming what has another shape.
    """
    shape = tuple(output.losses.shape)
    if len(shape) != 1 or shape[0] == 0:
        raise ValueError(f"the method's losses have shape {shape}; there must be one loss per pair, (B,) with B > 0")
    if output.weights is not None and tuple(output.weights.shape) != shape:
        raise ValueError(f"the method's weights have shape {tuple(output.weights.shape)}, its losses {shape}")
    for name, values in output.metrics.items():
        if tuple(values.shape) != shape:
            raise ValueError(f"the method's metric {name!r} has shape {tuple(values.shape)}, its losses {shape}")
    unknown = set(output.spreads) - set(output.metrics)
    if unknown:
        raise ValueError(f"the method asks for the spread of {sorted(unknown)}, which are not among its metrics")


def detached(output: LossOutput) -> LossOutput:
    """The same output without its graph, which frees memory."""
    metrics = {name: values.detach() for name, values in output.metrics.items()}
    return replace(output, losses=output.losses.detach(), metrics=metrics)


def process_rows(outputs: Sequence[LossOutput], *, stop: bool) -> ProcessRows:
    """The figures of this process's micro-batches as plain numbers."""
    names = list(outputs[0].metrics)
    return ProcessRows(
        losses=[_numbers(output.losses) for output in outputs],
        weights=[
            [1.0] * len(output.losses) if output.weights is None else _numbers(output.weights) for output in outputs
        ],
        metrics={name: [value for output in outputs for value in _numbers(output.metrics[name])] for name in names},
        spreads=outputs[0].spreads,
        stop=stop,
    )


def _numbers(values: Tensor) -> list[float]:
    numbers: list[float] = values.detach().to(torch.float32).cpu().tolist()
    return numbers


def count_pairs(processes: Sequence[ProcessRows]) -> int:
    """Pairs of the step."""
    return sum(len(losses) for rows in processes for losses in rows.losses)


def total_weight(processes: Sequence[ProcessRows]) -> float:
    """What the losses of the step count together: their number, where none is weighted."""
    return math.fsum(_joined([rows.weights for rows in processes]))


def _joined(parts: Sequence[Sequence[Sequence[float]]]) -> list[float]:
    """One value a pair, of processes and their micro-batches."""
    return [value for micro_batches in parts for values in micro_batches for value in values]


def step_figures(processes: Sequence[ProcessRows]) -> dict[str, float]:
    """Means over all pairs of the step; a metric with a spread gives ``<name>/mean`` and ``<name>/std``.

    Every pair weighs the same, whatever process and micro-batch it is in; a loss weighs what its method says. The
    standard deviation is the population's (divided by the number of pairs).
    """
    losses, weights = _joined([rows.losses for rows in processes]), _joined([rows.weights for rows in processes])
    figures = {"loss": float(np.average(losses, weights=weights))}
    for name in processes[0].metrics:
        values = np.array([value for rows in processes for value in rows.metrics[name]], dtype=np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            mean, deviation = float(values.mean()), float(values.std())
        if name in processes[0].spreads:
            figures |= {f"{name}/mean": mean, f"{name}/std": deviation}
        else:
            figures[name] = mean
    return figures


def rows_not_finite(processes: Sequence[ProcessRows]) -> list[str]:
    """Where losses are not finite, as text: process, micro-batch and rows, all counted from 0."""
    places: list[str] = []
    for rank, rows in enumerate(processes):
        for index, losses in enumerate(rows.losses):
            bad = [row for row, loss in enumerate(losses) if not math.isfinite(loss)]
            if bad:
                places.append(f"process {rank}, micro-batch {index}, rows {bad}")
    return places


def mean_by_name(processes: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each figure over the processes that have it."""
    names = dict.fromkeys(name for figures in processes for name in figures)
    return {name: float(np.mean([figures[name] for figures in processes if name in figures])) for name in names}


def peak_memory(device: torch.device) -> dict[str, float]:
    """``peak_memory_gib``: the most memory that tensors took on a CUDA device since the start; nothing elsewhere."""
    if device.type != "cuda":
        return {}
    return {"peak_memory_gib": torch.cuda.max_memory_allocated(device) / 2**30}


def most_by_name(processes: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The largest value of each figure over the processes that have it."""
    names = dict.fromkeys(name for figures in processes for name in figures)
    return {name: max(figures[name] for figures in processes if name in figures) for name in names}
