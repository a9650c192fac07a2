"""Where the shipped weights of the embedded world lie."""

from __future__ import annotations

from pathlib import Path

ASSETS = Path(__file__).parent / "assets"

PIPELINE = ASSETS / "pipeline"
"""A Stable Diffusion pipeline in diffusers' format."""

FLOW_PIPELINE = ASSETS / "flow"
"""A Stable Diffusion 3 pipeline without T5, on the same drawings."""

SCORER = ASSETS / "scorer"
"""A step-aware CLIP preference model."""

PLAIN_SCORER = ASSETS / "plain"
"""The same of finished images alone: a plain CLIP preference model."""

FEW_LABELS = ASSETS / "few.safetensors"
"""What about 100 choices teach: one weight for each coordinate of the CLIP's embeddings."""

CLIP = ASSETS / "clip"
"""The CLIP that preference models of the world start from."""
