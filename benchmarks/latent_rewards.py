"""What a latent reward saves in SPO's roll-out: ``python -m benchmarks.latent_rewards``.

One roll-out ranks its candidates by decoded previews and a CLIP, the other the same number of candidates by a latent
reward model made of the same UNet. Policy, prompts, steps and draws are the same; both include the reference's passes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

# Before the first import of torch: one thread, with which small networks are timed best.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from benchmarks.networks import SMALL, TINY, Shape, ours, small_pipeline
from benchmarks.scoring import small_clip
from benchmarks.table import aligned
from benchmarks.timing import counted, flops
from seedpo.cli.shared import quieten_libraries
from seedpo.methods.settings import SamplingConfig, StepPoolConfig
from seedpo.methods.sources.steps import StepRollout
from seedpo.rewards.clip import ClipScorer, transformers_tokens
from seedpo.rewards.latent_reward_model import LatentRewardModel
from seedpo.rewards.latent_scorer import LatentScorer, LatentSpace
from seedpo.rewards.named import CheckedReward
from seedpo.scenes.prompts import EVALUATION_PROMPTS

STEPS, CANDIDATES, PROMPTS = 5, 4, 2

Work = Callable[[], object]


def rollouts(shape: Shape) -> tuple[Mapping[str, Work], Any]:
    """Both roll-outs by their names, and the policy's UNet."""
    pipeline = small_pipeline(shape)
    space = LatentSpace(channels=4, scaling_factor=0.18215, alphas_cumprod=pipeline.scheduler.alphas_cumprod)
    latent = LatentScorer(
        LatentRewardModel(deepcopy(pipeline.unet), deepcopy(pipeline.text_encoder), width=shape.text_width),
        lambda prompt: [transformers_tokens(pipeline.tokenizer, prompt, 77)["input_ids"]],
        space=space,
        autoencoder=lambda: pipeline.vae,
    )
    rewards = {
        "previews, decoded": CheckedReward("clip", ClipScorer(*small_clip(tiny=shape is TINY))),
        "noisy latents": latent,
    }
    policy = ours(pipeline)
    made = {
        name: StepRollout(
            policy,
            reward,
            sampling=SamplingConfig(num_inference_steps=STEPS, guidance_scale=5.0, eta=1.0),
            config=StepPoolConfig(candidates=CANDIDATES, plain_steps=0, min_gap=0.0),
        )
        for name, reward in rewards.items()
    }

    def work(rollout: StepRollout) -> Work:
        return lambda: rollout(EVALUATION_PROMPTS[:PROMPTS], generator=torch.Generator().manual_seed(0))

    return {name: work(rollout) for name, rollout in made.items()}, policy.network


def measure(shape: Shape, *, repetitions: int) -> dict[str, Any]:
    """Processor seconds of both in turns, their FLOPs, and the rows through the policy's UNet.

    The first turn warms up and is not counted.
    """
    works, network = rollouts(shape)
    seconds: dict[str, list[float]] = {name: [] for name in works}
    rows: dict[str, int] = {}
    for turn in range(repetitions + 1):
        for name, work in works.items():
            with counted([network]) as count:
                started = time.process_time()
                work()
                if turn:
                    seconds[name].append(time.process_time() - started)
            rows[name] = count[0]
    decoded, latent = seconds.values()
    ratios = [one / other for one, other in zip(decoded, latent, strict=True)]
    operations = {name: flops(work) for name, work in works.items()}
    return {
        "seconds": {name: statistics.median(values) for name, values in seconds.items()},
        "ratio": statistics.median(decoded) / statistics.median(latent),
        "ratio_range": [min(ratios), max(ratios)],
        "flops": operations,
        "rows": rows,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a table, and with ``--json`` the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latent_rewards", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5, help="turns that are counted (default: 5)")
    parser.add_argument("--tiny", action="store_true", help="networks of no size: tries the command, measures nothing")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON instead")
    options = parser.parse_args(sys.argv[1:] if arguments is None else list(arguments))
    if options.repetitions < 1:
        parser.error("--repetitions must be 1 or more")
    quieten_libraries()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    figures = measure(TINY if options.tiny else SMALL, repetitions=options.repetitions)
    if options.json:
        print(json.dumps(figures, indent=2))
        return 0
    table = [("roll-out by", "processor time", "GFLOP", "rows through the policy")]
    table += [
        (name, f"{seconds:.2f} s", f"{figures['flops'][name] / 1e9:.1f}", str(figures["rows"][name]))
        for name, seconds in figures["seconds"].items()
    ]
    print(aligned(table))
    low, high = figures["ratio_range"]
    one, other = figures["flops"].values()
    print(f"time: {figures['ratio']:.2f} ({low:.2f} to {high:.2f}) times; FLOPs: {one / other:.2f} times")
    return 0


if __name__ == "__main__":
    sys.exit(main())
