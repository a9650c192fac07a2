"""Speed and memory of models in their published shapes on a GPU: ``python -m benchmarks.gpu [--out FILE.json]``."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from benchmarks.shapes import MODELS, RandomModel, random_model
from benchmarks.table import aligned
from seedpo.cli.shared import quieten_libraries
from seedpo.core.draws import KeyedDraws
from seedpo.core.sampling import Sampler, Sampling, draw_noise
from seedpo.core.types import ImagePairs, StepBatch
from seedpo.methods.noise_dpo import NoiseDPO
from seedpo.methods.transition_dpo import TransitionDPO
from seedpo.models.policy import PipelinePolicy
from seedpo.protocols import Method

PAIRS = {"sd15": 8, "sdxl": 2, "sd35": 2, "zimage": 1}
"""Pairs per step, unless another number is asked for."""

CHECKPOINTED = {"sd15": False, "sdxl": True, "sd35": True, "zimage": True}
"""Whether gradients are checkpointed, unless it is said."""

CARD_BYTES = 24 * 10**9
"""What training is to fit into; a little less than a card of 24 GB has, for what the driver takes."""

GUIDANCE, STEPS = 5.0, 20

STEPS_IN_TINY = 2
"""Where only the script is tried."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """A unit of work that can be done again and again.

    Attributes:
        name: what it is.
        count: pairs or images that come of it.
        unit: which of the two.
        do: does it once.
    """

    name: str
    count: int
    unit: str
    do: Callable[[], object]


class _Known:
    """A cache that knows the reference's numbers of every pair."""

    def find(self, content: Tensor, timestep: Tensor, noise: Tensor) -> Tensor:
        return torch.zeros(2, len(timestep), dtype=torch.float64)

    def keep(self, content: Tensor, timestep: Tensor, noise: Tensor, log_probs: Tensor) -> None:
        raise AssertionError("all numbers are known")


def training(policy: PipelinePolicy, method: Method[Any], batch: Any) -> Callable[[], None]:
    """One step of the optimiser."""
    parameters = list(policy.trainable_parameters().values())
    optimizer = AdamW(parameters, lr=1e-6)

    def do() -> None:
        method.loss(policy, batch, generator=torch.Generator().manual_seed(0)).losses.mean().backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return do


def diffusion_dpo(model: RandomModel, pairs: int, *, cached: bool) -> Work:
    """Pairs of images whose latents and prompts are cached, the reference's numbers too or not."""
    policy = model.policy
    policy.release("vae")
    generator = torch.Generator().manual_seed(1)
    chosen, rejected = (
        draw_noise((pairs, *policy.latent_shape), generator=generator, device=policy.device) for _ in range(2)
    )
    batch = ImagePairs(
        chosen_latents=chosen,
        rejected_latents=rejected,
        conditioning=model.conditioning(pairs, seed=2),
        pair=torch.arange(pairs),
        visit=torch.zeros(pairs, dtype=torch.int64),
        content=torch.zeros(pairs, 32, dtype=torch.uint8),
    )
    method = NoiseDPO(
        policy_weight=2000.0, reference_weight=2000.0, draws=KeyedDraws(seed=0), cache=_Known() if cached else None
    )
    name = f"Diffusion-DPO, reference {'cached' if cached else 'asked'}"
    return Work(name=name, count=pairs, unit="pairs", do=training(policy, method, batch))


def spo(model: RandomModel, pairs: int) -> Work:
    """Pairs of steps from a shared x_t, with guidance; the reference is asked once, as at a roll-out."""
    policy = model.policy
    generator = torch.Generator().manual_seed(1)
    latents, chosen, rejected = (
        draw_noise((pairs, *policy.latent_shape), generator=generator, device=policy.device) for _ in range(3)
    )
    now, then = (times[STEPS // 2].expand(pairs).to(policy.device) for times in policy.process.timesteps(STEPS))
    batch = StepBatch(
        latents=latents,
        timestep=now,
        next_timestep=then,
        conditioning=model.conditioning(pairs, seed=2),
        negative_conditioning=model.conditioning(pairs, seed=3),
        next_latents=torch.cat([chosen, rejected]),
        start=torch.arange(pairs, device=policy.device).repeat(2),
        chosen=torch.arange(pairs, device=policy.device),
        rejected=torch.arange(pairs, 2 * pairs, device=policy.device),
    )
    method = TransitionDPO(policy_weight=10.0, reference_weight=10.0, sampling=_stochastic(policy, STEPS))
    return Work(name="SPO, shared x_t", count=pairs, unit="pairs", do=training(policy, method, batch))


def _stochastic(policy: PipelinePolicy, steps: int) -> Sampling:
    """Steps as random as they usually are in roll-outs."""
    return Sampling(num_inference_steps=steps, guidance_scale=GUIDANCE, eta=policy.process.usual_eta)


def sampling(model: RandomModel, images: int) -> Work:
    """Images with guidance, decoded."""
    policy = model.policy
    steps = STEPS_IN_TINY if policy.latent_shape[1] < 16 else STEPS
    latents = draw_noise(
        (images, *policy.latent_shape), generator=torch.Generator().manual_seed(1), device=policy.device
    )
    conditioning, negative = (model.conditioning(images, seed=seed) for seed in (2, 3))

    def do() -> Tensor:
        sampler = Sampler(policy, _stochastic(policy, steps))
        clean = sampler.sample(latents, conditioning, negative, generator=torch.Generator().manual_seed(2))
        return policy.decode(clean)

    return Work(name=f"sampling, {steps} steps", count=images, unit="images", do=do)


WORKS: dict[str, Callable[[RandomModel, int], Work]] = {
    "sampling": sampling,
    "spo": spo,
    "diffusion-dpo": lambda model, pairs: diffusion_dpo(model, pairs, cached=False),
    "diffusion-dpo-cached": lambda model, pairs: diffusion_dpo(model, pairs, cached=True),
}


def matrix_peak(device: torch.device, dtype: torch.dtype, *, size: int, repetitions: int = 20) -> float:
    """FLOP/s of products of square matrices, median of several."""
    one, other = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    seconds = timed(lambda: one @ other, device, repetitions=repetitions)
    return 2 * size**3 / statistics.median(seconds)


def timed(do: Callable[[], object], device: torch.device, *, repetitions: int) -> list[float]:
    """Seconds of each repetition; two before them warm up."""
    seconds = []
    for turn in range(repetitions + 2):
        _wait(device)
        started = time.perf_counter()
        do()
        _wait(device)
        if turn >= 2:
            seconds.append(time.perf_counter() - started)
    return seconds


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(work: Work, policy: PipelinePolicy, *, repetitions: int, compiled: bool) -> dict[str, Any]:
    """Speed, FLOP/s and peak memory, or that the memory was not enough."""
    device = policy.device
    on_gpu = device.type == "cuda"
    try:
        with FlopCounterMode(display=False) as counter:
            work.do()
        if compiled:
            policy.module.compile()
            work.do()
        if on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        seconds = timed(work.do, device, repetitions=repetitions)
    except torch.OutOfMemoryError:
        return {"name": work.name, "out_of_memory": True}
    median = statistics.median(seconds)
    return {
        "name": work.name,
        "count": work.count,
        "unit": work.unit,
        "per_second": work.count / median,
        "seconds": median,
        "seconds_range": [min(seconds), max(seconds)],
        "flops_per_second": counter.get_total_flops() / median,
        "peak_allocated": torch.cuda.max_memory_allocated(device) if on_gpu else None,
        "peak_reserved": torch.cuda.max_memory_reserved(device) if on_gpu else None,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description="Models in their published shapes, random weights made on the device, LoRA, prompts embedded "
        "before: pairs or images per second, FLOP/s as a share of what products of matrices reach here, peak memory.",
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"{', '.join(MODELS)}; all if none is named")
    parser.add_argument(
        "--work", action="append", choices=WORKS, help="what to measure; may be repeated (default: all)"
    )
    parser.add_argument("--batch-size", type=int, help=f"pairs or images at a time (default: {PAIRS})")
    parser.add_argument("--repetitions", type=int, default=5, help="steps that are timed (default: 5)")
    parser.add_argument("--precision", choices=["bf16", "fp16", "no"], default="bf16", help="default: bf16")
    parser.add_argument(
        "--checkpointing",
        action=argparse.BooleanOptionalAction,
        help="gradient checkpointing (default: for all but sd15)",
    )
    parser.add_argument("--compile", action="store_true", help="compile the network")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else None, help="default: cuda")
    parser.add_argument("--tiny", action="store_true", help="networks of no size on the CPU: tries the script")
    parser.add_argument("--out", type=Path, help="JSON file to write the figures to")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.models) - set(MODELS))
    if unknown:
        parser.error(f"no model is called {', '.join(unknown)}; there are {', '.join(MODELS)}")
    if min(options.repetitions, 1 if options.batch_size is None else options.batch_size) < 1:
        parser.error("--repetitions and --batch-size must be 1 or more")
    if options.device is None and not options.tiny:
        print(f"{parser.prog}: there is no CUDA device here; --tiny tries the script on the CPU", file=sys.stderr)
        return 1
    quieten_libraries()
    device = torch.device(options.device or "cpu")
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "no": torch.float32}[options.precision]
    peak = matrix_peak(device, dtype, size=256 if options.tiny else 8192)
    works = [(model, work) for model in options.models or MODELS for work in options.work or WORKS]
    figures = [
        _one(model, work, device, options) | {"model": model} for model, work in tqdm(works, unit="case", disable=None)
    ]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{name}, {options.precision}: matrix products reach {peak / 1e12:.4g} TFLOP/s\n")
    print(aligned(_rows(figures, peak)))
    if options.out is not None:
        content = {"device": name, "torch": torch.__version__, "matrix_peak": peak, "tiny": options.tiny}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps({**content, "figures": figures}, indent=2) + "\n", "utf-8")
    return 0


def _one(model: str, work: str, device: torch.device, options: argparse.Namespace) -> dict[str, Any]:
    """One case with a policy of its own, so that each has the peak memory that it has alone."""
    checkpointing = CHECKPOINTED[model] if options.checkpointing is None else options.checkpointing
    made = random_model(model, device, precision=options.precision, checkpointing=checkpointing, tiny=options.tiny)
    done = WORKS[work](made, options.batch_size or PAIRS[model])
    figures = measure(done, made.policy, repetitions=options.repetitions, compiled=options.compile)
    return figures | {"checkpointing": checkpointing, "compiled": options.compile}


def _rows(figures: Sequence[dict[str, Any]], peak: float) -> list[tuple[str, ...]]:
    rows = [("model", "work", "at a time", "per second", "TFLOP/s", "share", "allocated", "reserved", "24 GB")]
    for figure in figures:
        if figure.get("out_of_memory"):
            rows.append((figure["model"], figure["name"], "out of memory", *[""] * 6))
            continue
        reserved, allocated = figure["peak_reserved"], figure["peak_allocated"]
        rows.append(
            (
                figure["model"],
                figure["name"],
                f"{figure['count']} {figure['unit']}",
                f"{figure['per_second']:.3g}",
                f"{figure['flops_per_second'] / 1e12:.4g}",
                f"{figure['flops_per_second'] / peak:.1%}",
                *("-" if held is None else f"{held / 1e9:.1f} GB" for held in (allocated, reserved)),
                "-" if reserved is None else "fits" if reserved <= CARD_BYTES else "too much",
            )
        )
    return rows


if __name__ == "__main__":
    sys.exit(main())
