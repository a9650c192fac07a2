"""Log-probabilities under the reference: two numbers for each pair and draw."""

from __future__ import annotations

import torch
from torch import Tensor

from seedpo.data.cache.digests import digest
from seedpo.data.cache.store import Store
from seedpo.data.cache.tensor_digests import tensor_bytes


class ReferenceScalars:
    """What the frozen reference says of pairs, each pair at one time step and one noise.

    A key covers what the latents and the prompt were made from, and the drawn numbers themselves rather than their
    seed. The other things that a log-probability depends on (weights, precision, noise schedule, reduction) are the
    settings of the store.

    Args:
        store: of the log-probabilities.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    def find(self, content: Tensor, timestep: Tensor, noise: Tensor) -> Tensor | None:
        """Log-probabilities of chosen and rejected images, (2, B) float64 on the CPU; `None` unless all are known.

        Part of a batch is of no use: a network that sees fewer rows may round differently, so that a run would depend
        on what happens to be stored.

        Args:
            content: of :class:`seedpo.core.types.ImagePairs`, (B, 32) uint8.
            timestep: (B,), on the CPU.
            noise: (B, ...), on the CPU.
        """
        log_probs = []
        for key in _keys(content, timestep, noise):
            entry = self.store.get(key)
            if entry is None:
                return None
            log_probs.append(entry["log_prob"])
        return torch.stack(log_probs, 1)

    def keep(self, content: Tensor, timestep: Tensor, noise: Tensor, log_probs: Tensor) -> None:
        """Stores log-probabilities (2, B) for :meth:`find`.

        Raises:
            CacheError: if they cannot be written.
        """
        values = log_probs.detach().to(device="cpu", dtype=torch.float64)
        for row, key in enumerate(_keys(content, timestep, noise)):
            self.store.put(key, {"log_prob": values[:, row].clone()})


def _keys(content: Tensor, timestep: Tensor, noise: Tensor) -> list[bytes]:
    rows = zip(content, timestep, noise, strict=True)
    return [digest(tensor_bytes(pair), tensor_bytes(time), tensor_bytes(drawn)) for pair, time, drawn in rows]
