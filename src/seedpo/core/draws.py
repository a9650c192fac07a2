"""What is drawn for a pair as a function of a seed, the pair and the visit alone.

Draws from a generator that runs on depend on everything that was drawn before, so no two runs share them. These do not:
runs with other weights, betas, batch sizes and orders draw the same time step and noise for a pair's n-th visit, so
that what was computed from them can be used again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from seedpo.core.processes import Process


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

    def _seed(self, purpose: str, pair: int, visit: int) -> int:
        turn = visit if self.visits is None else visit % self.visits
        digest = hashlib.sha256(f"{purpose} {self.seed} {pair} {turn}".encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 1  # torch takes seeds below 2^63
