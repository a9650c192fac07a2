"""What can be measured, by name."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.diffusion_dpo import lora_step
from benchmarks.flow_dpo import FLOW_FACTORY, SIMPLETUNER, flow_lora_step
from benchmarks.networks import Shape
from benchmarks.scoring import scoring
from benchmarks.timing import Comparison
from benchmarks.transitions import d3po, spo

CASES: dict[str, Callable[[Shape], Comparison]] = {
    "spo": spo,
    "spo-2-passes": lambda shape: spo(shape, passes=2),
    "diffusion-dpo": lora_step,
    "diffusion-dpo-checkpointed": lambda shape: lora_step(shape, checkpointing=True),
    "flow-dpo": lambda shape: flow_lora_step(shape.flow),
    "flow-dpo-known-prompts": lambda shape: flow_lora_step(shape.flow, peer=FLOW_FACTORY),
    "flow-dpo-known-latents": lambda shape: flow_lora_step(shape.flow, peer=SIMPLETUNER),
    "flow-dpo-first-run": lambda shape: flow_lora_step(shape.flow, reference_known=False),
    "d3po-pairs": lambda shape: d3po(shape, update_per="pair"),
    "d3po-groups": d3po,
    "reward": scoring,
    "reward-known-prompts": lambda shape: scoring(shape, known_prompts=True),
    "reward-reloaded": lambda shape: scoring(shape, reloading=True),
}
"""Comparisons of the published structure with ours."""

AGREEMENT = "d3po-agreement"
"""Not a comparison of costs: what one update per group changes."""

NAMES = (*CASES, AGREEMENT)
