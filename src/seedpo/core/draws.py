"""What is drawn for a pair as a function of a seed, the pair and the visit alone.

Draws from a generator that runs on depend on everything that was drawn before, so no two runs share them. These do not:
runs with other weights, betas, batch sizes and orders draw the same time step and noise for a pair's n-th visit, so
that what was computed from them can be used again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from seedpo.core.processes import Process

_PER_STRATUM = 16
"""Time steps in a sorted sample for each part of it."""


def seed_of(*key: str | int) -> int:
    """A seed that follows from a key, below 2^63 as torch takes it."""
    digest = hashlib.sha256(" ".join(map(str, key)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class PairDraws(Protocol):
    """Time steps and noise as a function of pair and visit."""

    def timestep_and_noise(
        self, pair: Tensor, visit: Tensor, *, process: Process, shape: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Time steps (B,) and standard normal noise (B, *shape) of pairs (B,) at their visits (B,), on the CPU."""


@dataclass(frozen=True, kw_only=True)
class KeyedDraws:
    """Coins, uniform numbers, time steps and noise of pairs.

    Attributes:
        seed: of all draws.
        visits: after so many visits of a pair its draws repeat; ``None``: every visit draws anew.
    """

    seed: int
    visits: int | None = None

    def coin(self, pair: int, visit: int) -> bool:
        """A fair coin, for example whether both images of the pair are mirrored.

        Args:
            pair: number of the pair in its set.
            visit: how often the pair was handed out before.
        """
        return self._seed("coin", pair, visit) % 2 == 1

    def uniform(self, pair: int, visit: int) -> float:
        """A number in [0, 1), for example to leave out the prompt of a share of the visits.

        Args:
            pair: number of the pair in its set.
            visit: how often the pair was handed out before.
        """
        return self._seed("uniform", pair, visit) / 2**63

    def timestep_and_noise(
        self, pair: Tensor, visit: Tensor, *, process: Process, shape: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """One time step and one noise per pair, whatever other pairs are in the batch.

        Args:
            pair: numbers of the pairs in their set, (B,) int64.
            visit: how often each was handed out before, (B,) int64.
            process: draws the time steps.
            shape: of one latent image.

        Returns:
            Time steps (B,), as the process draws them, and standard normal float32 noise (B, *shape), on the CPU.
        """
        timesteps, noises = [], []
        for number, turn in zip(pair.tolist(), visit.tolist(), strict=True):
            generator = torch.Generator().manual_seed(self._seed("noise", number, turn))
            timesteps.append(process.draw_timesteps(1, generator=generator))
            noises.append(torch.randn(tuple(shape), generator=generator, dtype=torch.float32))
        return torch.cat(timesteps), torch.stack(noises)

    def latent_noise(self, pair: Tensor, visit: Tensor, *, shape: Sequence[int]) -> Tensor:
        """Standard normal float32 noise (B, *shape) with which latents of pairs are drawn, on the CPU.

        Args:
            pair: numbers of the pairs in their set, (B,) int64.
            visit: how often each was handed out before, (B,) int64.
            shape: of the latents of one pair.
        """
        seeds = [
            self._seed("latents", number, turn) for number, turn in zip(pair.tolist(), visit.tolist(), strict=True)
        ]
        return torch.stack([torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed)) for seed in seeds])

    def _seed(self, purpose: str, pair: int, visit: int) -> int:
        turn = visit if self.visits is None else visit % self.visits
        return seed_of(purpose, self.seed, pair, turn)


@dataclass(frozen=True, kw_only=True)
class StratifiedDraws:
    """Draws that spread the time steps of a pair's visits, so that few of them stand for all times.

    The visits 0 to ``strata`` - 1 of a pair draw from as many parts of the process's distribution, each of the same
    probability: together they are distributed as the process draws. The parts are those of a sorted sample, so that
    any process will do.

    Attributes:
        seed: of all draws.
        strata: visits of each pair.
    """

    seed: int
    strata: int

    def timestep_and_noise(
        self, pair: Tensor, visit: Tensor, *, process: Process, shape: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """One time step and one noise per pair, as :meth:`KeyedDraws.timestep_and_noise` gives them."""
        keyed = KeyedDraws(seed=self.seed)
        _, noise = keyed.timestep_and_noise(pair, visit, process=process, shape=shape)
        timesteps = [
            self._timestep(number, turn, process) for number, turn in zip(pair.tolist(), visit.tolist(), strict=True)
        ]
        return torch.cat(timesteps), noise

    def _timestep(self, pair: int, visit: int, process: Process) -> Tensor:
        # One sample for all visits of the pair: visit v takes one of the v-th part of it.
        generator = torch.Generator().manual_seed(seed_of("strata", self.seed, pair))
        sample = process.draw_timesteps(self.strata * _PER_STRATUM, generator=generator).sort().values
        places = torch.randint(_PER_STRATUM, (self.strata,), generator=generator)
        place = visit * _PER_STRATUM + int(places[visit])
        return sample[place : place + 1]
