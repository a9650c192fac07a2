"""What one unit of training costs with each method: by plan, and counted in a run.

    python -m benchmarks.method_costs [METHOD ...] --out FILE.json

A unit is what ``batch_size`` counts: a pair, a like, a group, or a pair of steps. Rows through the network are counted
in a run on the embedded model, and compared with those of the plan of the same run. FLOPs are those of a plan for
Stable Diffusion 1.5 at 512 px with each method's published settings.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

from benchmarks.table import aligned
from seedpo.methods.presets import METHODS
from seedpo.planning.dry_run import NO_GUESSES, Guesses, dry_run
from seedpo.planning.gpus import GPUS
from seedpo.planning.plan import plan_run
from seedpo.scenes.pairs import preference_table
from seedpo.training.accelerator import build_accelerator
from seedpo.training.configuration import resolve_config
from seedpo.training.reference import has_weights
from seedpo.training.run import build_parts, process_of
from seedpo.training.settings import RunConfig

STABLE_DIFFUSION = "stable-diffusion-v1-5/stable-diffusion-v1-5"
PASSES = ("policy", "reference", "initial", "sampling")

SMALL: Mapping[str, Any] = {
    "model": "scenes",
    "max_steps": 12,
    "batch_size": 4,
    "gradient_accumulation_steps": 1,
    "sampling": {"num_inference_steps": 5, "guidance_scale": 2.0},
    "evaluation": {"num_prompts": 2, "images_per_prompt": 2, "rewards": [], "metrics": []},
}


class RowCounter:
    """Counts rows by who answers: the policy with gradient or as a sampler, the reference, or the untrained model."""

    def __init__(self, policy: Any) -> None:
        self.rows: Counter[str] = Counter()
        self._policy, self._who = policy, "policy"
        self._predict, self._contexts = policy.predict, {"reference": policy.reference, "initial": policy.initial}
        policy.predict = self._counted
        for name in self._contexts:
            setattr(policy, name, lambda name=name: self._within(name))

    def _counted(self, latents: torch.Tensor, timestep: torch.Tensor, conditioning: Any) -> torch.Tensor:
        who = "sampling" if self._who == "policy" and not torch.is_grad_enabled() else self._who
        self.rows[who] += len(latents)
        prediction: torch.Tensor = self._predict(latents, timestep, conditioning)
        return prediction

    @contextmanager
    def _within(self, name: str) -> Iterator[None]:
        before, self._who = self._who, name
        inside: AbstractContextManager[None] = self._contexts[name]()
        with inside:
            yield
        self._who = before


def small_run(method: str, folder: Path) -> RunConfig:
    """A short run of a method on the embedded model, of which all roll-outs are needed whole."""
    preset = METHODS[method]
    changes: dict[str, Any] = dict(SMALL)
    section = preset.source.section
    if section is not None:
        gaps = {"min_gap": 0.0, **({"min_gap_noisiest": None, "plain_steps": 1} if section == "steps" else {})}
        changes |= {section: {"prompts_per_rollout": 4, **gaps}}
    if preset.source.gives == "pairs" and preset.source.fixed_pairs:
        pq.write_table(preference_table(count=64, seed=1), folder / "pairs.parquet")
        changes |= {"data": str(folder / "pairs.parquet")}
    return resolve_config(method, changes)


def rows_of_run(config: RunConfig) -> tuple[Mapping[str, float], Mapping[str, float]]:
    """Rows of a run of the embedded model by pass, counted and planned, per unit."""
    units = config.max_steps * config.batch_size
    parts = build_parts(config, build_accelerator("no"), progress=False)
    if has_weights(config):
        parts.policy.move_reference()
    counter, generator = RowCounter(parts.policy), torch.Generator().manual_seed(0)
    observed: list[float] = []
    for _ in range(config.max_steps):
        batch = parts.source.next_batch()
        observed.append(parts.source.metrics().get("pairs_kept", 1.0))
        torch.autograd.backward(parts.method.loss(parts.policy, batch, generator=generator).losses.sum())
    guesses = NO_GUESSES if METHODS[config.method].source.fixed_pairs else Guesses(kept=max(observed))
    planned = dry_run(config, process_of(config, parts.policy), guesses).rows
    by_pass = Counter({name: sum(rows for (_, part), rows in planned.items() if part == name) for name in PASSES})
    return (
        {name: counter.rows[name] / units for name in PASSES},
        {name: float(by_pass[name] / units) for name in PASSES},
    )


def flops_by_plan(method: str) -> dict[str, float]:
    """FLOPs of one unit for Stable Diffusion 1.5 with the published settings, by activity, and their sum."""
    supplies = {"reward": "lrm-sd15" if method == "lpo" else "pickscore"}
    if METHODS[method].source.fixed_pairs:
        supplies |= {"data": "pairs.parquet"}
    config = resolve_config(method, {"model": STABLE_DIFFUSION, **supplies}, bfloat16=True)
    (gpu,) = (gpu for gpu in GPUS if gpu.name == "A100-80")
    plan = plan_run(config, gpu=gpu, gpus=1, utilisation=0.35, guesses=NO_GUESSES, progress=lambda part: None)
    return {line.name: line.flops for line in plan.lines} | {"total": plan.flops_per_pair}


def main() -> None:
    """Prints the table, and writes it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", metavar="METHOD", help="all if none is named")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write the figures to")
    options = parser.parse_args()
    content: dict[str, Any] = {}
    for method in options.methods or METHODS.names():
        with tempfile.TemporaryDirectory() as folder:
            counted, planned = rows_of_run(small_run(method, Path(folder)))
        content[method] = {"counted": counted, "planned": planned, "flops": flops_by_plan(method)}
        options.out.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    rows = [("method", *(f"{name}: counted / plan" for name in PASSES), "TFLOP per unit, SD1.5")]
    for method, figures in content.items():
        pairs = [f"{figures['counted'][name]:g} / {figures['planned'][name]:g}" for name in PASSES]
        rows.append((method, *pairs, f"{figures['flops']['total'] / 1e12:.3g}"))
    print(aligned(rows))


if __name__ == "__main__":
    main()
