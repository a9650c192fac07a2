"""Runs of small models on the CPU, and the FLOPs that torch counts in them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from seedpo.models.policy import build_policy
from seedpo.settings import merge
from seedpo.training.caches import open_caches
from seedpo.training.configuration import resolve_config
from seedpo.training.reference import has_weights
from seedpo.training.run import build_method, build_source
from seedpo.training.settings import RunConfig
from tests.models.published import pipeline_of
from tests.small_runs import small

EIGHT_PROMPTS = tuple(
    f"a {size} {colour} circle on a white background"
    for size in ("small", "large")
    for colour in ("red", "blue", "green", "navy")
)


@cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()


def model_folder(kind: str) -> str:
    """The tiny pipeline of ``sd15``, ``sd21`` or ``sdxl`` in a folder; written once, gone with the process."""
    folder = Path(_temporary().name) / kind
    if not folder.exists():
        pipeline_of(kind).save_pretrained(folder)
    return str(folder)


def settings(folder: Path, method: str, *, kind: str = "sd15", **changes: Any) -> RunConfig:
    """A small run of a tiny pipeline on more prompts than its roll-outs take, so that none is met twice."""
    keys = merge(
        small(folder),
        {
            "model": model_folder(kind),
            "pairs": {"resolution": 16},
            "evaluation": {"rewards": [], "metrics": ["pairwise_diversity"]},
        },
    )
    prompts = folder / "many.txt"
    prompts.write_text("\n".join(EIGHT_PROMPTS), encoding="utf-8")
    return resolve_config(method, merge(merge(keys, {"prompts": str(prompts)}), changes), bfloat16=False)


def counted(action: Callable[[], object]) -> int:
    """FLOPs of what is done; attention through its plain kernel, since torch does not count the CPU's fused one."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        action()
    return int(counter.get_total_flops())


def train(config: RunConfig) -> dict[str, float]:
    """All micro-batches of a run: pairs, losses and gradients, without updates. What the source observed."""
    policy = build_policy(config)
    if has_weights(config):
        policy.move_reference()
    caches = open_caches(config, policy)
    source, method = build_source(config, policy, caches=caches), build_method(config, caches)
    generator = torch.Generator().manual_seed(0)
    for _ in range(config.max_steps * config.gradient_accumulation_steps):
        method.loss(policy, source.next_batch(), generator=generator).losses.sum().backward()
    return dict(source.metrics())
