"""Denoising steps as a roll-out stores them: every latents once, by number, and prompts as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from seedpo.core.transitions import widest_dtype
from seedpo.methods.sources.embeddings import PromptEmbeddings


@dataclass(frozen=True, kw_only=True)
class StoredSteps:
    """N denoising steps between S latents.

    Latents, steps and prompts that several units share are stored once. Prompts are stored as text, since an embedded
    prompt of SDXL takes more memory than the latents of two steps. For one prompt, two images and two steps that share
    x_T, in D3PO's manner::

        latents    0 ---step 0--> 1 ---step 1--> 2        image 0: start = [0, 1, 0, 3]
                   0 ---step 2--> 3 ---step 3--> 4        image 1: end   = [1, 2, 3, 4]

    Attributes:
        latents: (S, ...).
        start: row of ``latents`` from which each step starts, (N,) int64. Steps from one row have one time step and one
            prompt.
        end: row of ``latents`` to which each step leads, (N,) int64.
        timestep: time step at the start of each step, (N,).
        next_timestep: time step at its end, (N,).
        prompt: row of ``prompts`` of each step, (N,) int64.
        prompts: the prompts.
    """

    latents: Tensor
    start: Tensor
    end: Tensor
    timestep: Tensor
    next_timestep: Tensor
    prompt: Tensor
    prompts: tuple[str, ...]

    def with_latents_on(self, device: torch.device | str) -> Self:
        """The same with the latents on another device; numbers stay on the CPU."""
        return replace(self, latents=self.latents.to(device))


def selected(stored: StoredSteps, steps: Tensor) -> dict[str, Any]:
    """The fields of some steps, (N',) int64, with only the latents and prompts that they need, in their old order."""
    rows, row = torch.unique(torch.cat([stored.start[steps], stored.end[steps]]), return_inverse=True)
    prompts, prompt = torch.unique(stored.prompt[steps], return_inverse=True)
    return {
        "latents": stored.latents[rows],
        "start": row[: len(steps)],
        "end": row[len(steps) :],
        "timestep": stored.timestep[steps],
        "next_timestep": stored.next_timestep[steps],
        "prompt": prompt,
        "prompts": tuple(stored.prompts[index] for index in prompts.tolist()),
    }


def joined(parts: Sequence[StoredSteps]) -> dict[str, Any]:
    """The fields of the steps of several roll-outs, or parts of one, in succession; each prompt once."""
    prompts = tuple(dict.fromkeys(prompt for part in parts for prompt in part.prompts))
    number = {prompt: index for index, prompt in enumerate(prompts)}
    rows = [len(part.latents) for part in parts]
    return {
        "latents": torch.cat([part.latents for part in parts]),
        "start": renumbered([part.start for part in parts], rows),
        "end": renumbered([part.end for part in parts], rows),
        "timestep": torch.cat([part.timestep for part in parts]),
        "next_timestep": torch.cat([part.next_timestep for part in parts]),
        "prompt": torch.cat([torch.tensor([number[prompt] for prompt in part.prompts])[part.prompt] for part in parts]),
        "prompts": prompts,
    }


def renumbered(numbers: Sequence[Tensor], counts: Sequence[int]) -> Tensor:
    """Numbers of the rows of each part, shifted by how many rows the parts before it have."""
    offsets = [sum(counts[:index]) for index in range(len(counts))]
    return torch.cat([some + offset for some, offset in zip(numbers, offsets, strict=True)])


OF_TEACHING = ("loss_weight", "suspect")
"""How much an image teaches, by the names of fields of records; not all roll-outs know."""


def rows_of(record: Any, names: Sequence[str], rows: Tensor) -> dict[str, Any]:
    """Some rows of the fields of these names, each of which may be ``None``."""
    fields = {name: getattr(record, name) for name in names}
    return {name: None if values is None else values[rows] for name, values in fields.items()}


def on_device(fields: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Fields on a device, float64 as the widest type that it has."""
    types = {torch.float64: widest_dtype(device)}
    return {
        name: None if values is None else values.to(device, types.get(values.dtype, values.dtype))
        for name, values in fields.items()
    }


def joined_fields(parts: Sequence[Any], names: Sequence[str]) -> dict[str, Any]:
    """The fields of these names of several records in succession; ``None`` unless all of them have one."""
    fields = {name: [getattr(part, name) for part in parts] for name in names}
    return {name: None if any(value is None for value in some) else torch.cat(some) for name, some in fields.items()}


def rows_of_units(unit: Tensor, units: Tensor) -> Tensor:
    """Rows (N,) whose unit is one of (U,), in the order of the units."""
    return torch.cat([(unit == number).nonzero()[:, 0] for number in units])


def starts(stored: StoredSteps, steps: Tensor, embeddings: PromptEmbeddings) -> dict[str, Any]:
    """The x_t from which some steps start, with time steps and embedded prompts, on the policy's device."""
    device = embeddings.device
    return {
        "latents": stored.latents[stored.start[steps]].to(device),
        "timestep": stored.timestep[steps].to(device),
        "next_timestep": stored.next_timestep[steps].to(device),
        "conditioning": embeddings.of(stored.prompts)[stored.prompt[steps]],
        "negative_conditioning": embeddings.negative(len(steps)),
    }


def first_of_each(key: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct values of a key (N,), ascending.

    Returns:
        The first place of each value (S,), and for every place which value it has (N,).
    """
    values, which = torch.unique(key, return_inverse=True)
    first = torch.full_like(values, len(key)).scatter_reduce(0, which, torch.arange(len(key)), "amin")
    return first, which
