"""What the GPU of this machine computes in."""

from __future__ import annotations

import torch


def gpu_has_bfloat16() -> bool:
    """Whether this machine has a CUDA device that computes in bfloat16 and does not only imitate it."""
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def usual_precision(bfloat16: bool | None = None) -> dict[str, str]:
    """The key ``mixed_precision`` of models for which nothing is set; empty if it is the default.

    Args:
        bfloat16: whether the GPU computes in bfloat16; ``None`` to ask the GPU of this machine.
    """
    return {"mixed_precision": "bf16"} if (gpu_has_bfloat16() if bfloat16 is None else bfloat16) else {}
