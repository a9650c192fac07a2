"""Whether the weights that a run started from are still the same when it is resumed.

The reference of a preference loss is the untrained model. It is loaded anew at every start, so a model folder that was
changed in between would move it without a trace.
"""

from __future__ import annotations

import hashlib

import torch
from torch import nn

from seedpo.errors import RunFolderError


@torch.no_grad()
def reference_hash(network: nn.Module) -> str:
    """SHA-256 of a network's untrained weights, in hexadecimal digits.

    With an adapter these are the frozen weights, which stay the reference; where everything is trained they are all
    weights, so that this must be asked before the first step and before a checkpoint is loaded.
    """
    weights = dict(network.named_parameters())
    frozen = {name: value for name, value in weights.items() if not value.requires_grad}
    digest = hashlib.sha256()
    for name, value in (frozen or weights).items():
        digest.update(f"{name.replace('_orig_mod.', '')} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def require_same_reference(before: str, now: str, where: object) -> None:
    """Checks that a checkpoint's run started from the weights that were loaded now.

    Raises:
        RunFolderError: if they differ.
    """
    if before and before != now:
        raise RunFolderError(
            f"{where} was made from other base weights than those of `model` today, so its reference would move; "
            "put the model back as it was, or choose another --out to start anew"
        )
