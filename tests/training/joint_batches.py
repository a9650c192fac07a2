"""What two processes do together with in-batch negatives; ``test_joint_batches.py`` launches it, and is one process."""

from __future__ import annotations

import faulthandler
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from seedpo.core.types import ImagePairs
from seedpo.errors import SeedpoError
from seedpo.processes import on_main_process
from seedpo.rewards.preference_model import Comparison
from seedpo.rewards.preference_objective import PreferenceObjective, in_batch_losses, joint_in_batch_losses
from seedpo.rewards.previews import FinishedImages, PixelPairs
from seedpo.training.run_folder import create_run_folder
from seedpo.training.trainer import Trainer
from tests.rewards.toy_pairs import BrightPairs, seeded, tiny_preference_model
from tests.training.toys import cpu_accelerator, message_of, toy_config

WHOLE = 4
"""Pairs of a micro-batch, of all processes."""

PAIRS = BrightPairs(40, tie_every=3)


class DealtPairs:
    """Micro-batches of the same pairs, whole or dealt out among processes."""

    def __init__(self, rank: int, world: int, *, fails_at: int | None = None) -> None:
        self.rank, self.world, self.fails_at = rank, world, fails_at
        self.batch = 0
        self.pairs = PixelPairs(PAIRS, size=8)

    def next_batch(self) -> ImagePairs:
        self.batch += 1
        if self.batch == self.fails_at and self.rank == 1:
            raise SeedpoError("the second process has no pairs")
        size = WHOLE // self.world
        first = (self.batch - 1) * WHOLE + self.rank * size
        rows = list(range(first, first + size))
        return replace(self.pairs.encode(rows, [False] * size), pair=torch.tensor(rows))

    def metrics(self) -> dict[str, float]:
        return {}

    def state(self) -> dict[str, Any]:
        return {"batch": self.batch}

    def restore(self, state: dict[str, Any]) -> None:
        self.batch = state["batch"]


def train(accelerator: Accelerator, root: Path, name: str, *, step_aware: bool = False, **source: Any) -> None:
    """Two steps of two micro-batches; AdamW moves by about the gradient itself."""
    rank, world = accelerator.process_index, accelerator.num_processes
    config = toy_config(
        max_steps=2,
        batch_size=WHOLE // world,
        gradient_accumulation_steps=2,
        evaluate_every=0,
        learning_rate=1.0,
        optimizer={"epsilon": 1.0, "weight_decay": 0.0, "max_grad_norm": 1e3},
    )
    folder = on_main_process(accelerator, lambda: create_run_folder(root / name, config))
    objective = PreferenceObjective(
        FinishedImages(), PAIRS.prompts, in_batch_negatives=True, counts=lambda row: 1 + row % 4
    )
    policy = tiny_preference_model(root / f"tokens-{rank}", step_aware=step_aware)
    policy.checkpoint_activations()
    trainer: Trainer[ImagePairs] = Trainer(
        policy=policy,
        method=objective,
        source=DealtPairs(rank, world, **source),
        config=config,
        folder=folder,
        accelerator=accelerator,
        progress=False,
    )
    trainer.train()


def features(count: int = 6) -> list[Tensor]:
    """Text (N, D), images (N, 2, D), logit scale (), labels (N,) and weights (N,), float64."""
    generator = seeded(3)
    text, images = (torch.randn(count, *shape, generator=generator).double() for shape in ((5,), (2, 5)))
    label = torch.tensor([1.0, 0.5, 1.0, 0.8, 1.0, 0.5], dtype=torch.float64)
    return [text, images, torch.tensor(1.5, dtype=torch.float64), label, 1.0 / torch.arange(1.0, count + 1).double()]


def weighted_loss(rows: slice, *, whole: bool) -> tuple[float, list[Tensor]]:
    """sum(w L) of some rows, and its gradients with respect to all texts, all images and the logit scale."""
    text, images, scale, label, weights = features()
    trained = [value.requires_grad_() for value in (text, images, scale)]
    normalised = [torch.nn.functional.normalize(value, dim=-1) for value in (text, images)]
    some = Comparison(text=normalised[0][rows], images=normalised[1][rows], scale=scale.exp())
    losses = in_batch_losses(some, label[rows]) if whole else joint_in_batch_losses(some, label[rows], weights[rows])
    total = (losses * weights[rows]).sum()
    return total.item(), list(torch.autograd.grad(total, trained))


def main(root: Path) -> None:
    torch.use_deterministic_algorithms(True)
    accelerator = cpu_accelerator(toy_config())
    uneven = [slice(0, 4), slice(4, 6)][accelerator.process_index]
    total, gradients = weighted_loss(uneven, whole=False)
    train(accelerator, root, "plain")
    train(accelerator, root, "step-aware", step_aware=True)
    failure = message_of(lambda: train(accelerator, root, "failing", fails_at=3))
    result = {"total": total, "gradients": [value.tolist() for value in gradients], "failure": failure}
    (root / f"results-{accelerator.process_index}.json").write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    faulthandler.dump_traceback_later(280, exit=True)  # Nobody waits for a run that hangs.
    main(Path(sys.argv[1]))
