"""What two processes do with a Stable Diffusion pipeline: started by ``test_two_processes.py``.

Its functions are used on one process too, for the numbers that two have to give.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from seedpo.core.draws import KeyedDraws
from seedpo.core.loser_scale import LoserScale
from seedpo.core.types import ImagePairs, Likes, LossOutput, StepBatch, StepGroups
from seedpo.errors import SeedpoError
from seedpo.evaluation.image_evaluation import ImageEvaluation
from seedpo.evaluation.settings import EvaluationConfig
from seedpo.methods.anchors import Anchored, Anchors, NoiseForm
from seedpo.methods.beta_rule import BetaRule
from seedpo.methods.dspo import DSPO
from seedpo.methods.grpo import GRPO
from seedpo.methods.kto import DiffusionKTO
from seedpo.methods.mapo import MaPO
from seedpo.methods.noise_dpo import NoiseDPO
from seedpo.methods.settings import AnchorConfig, GroupConfig, SamplingConfig, TrajectoryConfig
from seedpo.methods.sources import step_groups
from seedpo.methods.sources.data_anchor import SourceWithData
from seedpo.methods.sources.online import image_source
from seedpo.methods.sources.rollouts import RolloutSource
from seedpo.methods.sources.supplies import Supplies
from seedpo.methods.sources.trajectories import trajectory_source
from seedpo.methods.transition_dpo import TransitionDPO
from seedpo.models.policy import PipelinePolicy, build_policy
from seedpo.models.settings import LoraForm, ModelSettings
from seedpo.processes import on_main_process
from seedpo.run_folders import RunFolder
from seedpo.settings import build_config
from seedpo.training.run import reference_rule
from seedpo.training.run_folder import create_run_folder
from seedpo.training.settings import RunConfig
from seedpo.training.trainer import Trainer
from tests.methods.pair_rows import pair_rows, step_batch
from tests.models.tiny import PROMPTS, move, tiny_policy
from tests.training.toys import cpu_accelerator, message_of, toy_config
from tests.training.two_toys import toy_runs

STEPS = 3


def rows_in_turn(rank: int, world: int) -> Callable[[int], list[int]]:
    """Of every 4 rows each of two processes takes 2, in turn; one process takes them all."""
    return lambda batch: [row for row in range(4 * batch, 4 * batch + 4) if row % world == rank]


def rows_unevenly(rank: int, world: int) -> Callable[[int], list[int]]:
    """Of every 4 rows the first of two processes takes 1, the second 3."""
    return lambda batch: [row for row in range(4 * batch, 4 * batch + 4) if world == 1 or (row % 4 > 0) == (rank == 1)]


@dataclass
class DealtPairs:
    """Pairs whose content follows from their number; ``look`` may ask the policy for something first."""

    policy: PipelinePolicy
    rows: Callable[[int], list[int]]
    look: Callable[[int], None] = field(default=lambda batch: None)
    batch: int = 0
    rolls_out: Callable[[int], bool] = field(default=lambda batch: False)

    def rolls_out_within(self, batches: int) -> bool:
        return any(self.rolls_out(self.batch + number) for number in range(batches))

    def next_batch(self) -> ImagePairs:
        rows = self.rows(self.batch)
        self.look(self.batch)
        self.batch += 1
        latents = torch.stack([self._latents(row) for row in rows])
        return ImagePairs(
            chosen_latents=latents[:, 0],
            rejected_latents=latents[:, 1],
            conditioning=self.policy.encode_prompts([PROMPTS[row % 3] for row in rows]),
            pair=torch.tensor(rows),
            visit=torch.zeros(len(rows), dtype=torch.int64),
        )

    def _latents(self, row: int) -> Tensor:
        generator = torch.Generator().manual_seed(row)
        return torch.randn(2, *self.policy.latent_shape, generator=generator)

    def metrics(self) -> Mapping[str, float]:
        return {}

    def state(self) -> dict[str, Any]:
        return {"batch": self.batch}

    def restore(self, state: dict[str, Any]) -> None:
        self.batch = state["batch"]


@dataclass
class DealtLikes:
    """The preferred images of pairs as single images, half of which are liked."""

    pairs: DealtPairs

    @classmethod
    def of(cls, policy: PipelinePolicy, rows: Callable[[int], list[int]]) -> DealtLikes:
        return cls(DealtPairs(policy, rows))

    def next_batch(self) -> Likes:
        batch = self.pairs.next_batch()
        assert batch.pair is not None
        return Likes(
            latents=batch.chosen_latents,
            conditioning=batch.conditioning,
            liked=batch.pair % 4 < 2,
            pair=batch.pair,
            visit=batch.visit,
        )

    def metrics(self) -> Mapping[str, float]:
        return self.pairs.metrics()

    def state(self) -> dict[str, Any]:
        return self.pairs.state()

    def restore(self, state: dict[str, Any]) -> None:
        self.pairs.restore(state)


def in_turn(rank: int, world: int) -> Callable[[int], list[int]]:
    """Micro-batches of one process that are the batches of two processes, one after the other."""
    return lambda batch: rows_in_turn(rank if world > 1 else batch % 2, 2)(batch if world > 1 else batch // 2)


WEIGHTS = {"policy_weight": 40.0, "reference_weight": 20.0}
KEYED = NoiseDPO(**WEIGHTS, draws=KeyedDraws(seed=1))
"""Diffusion-DPO with noise that follows from a pair's number, so that it is the same on whatever process it is."""


SAMPLING = SamplingConfig(num_inference_steps=3, guidance_scale=2.0)
TRANSITIONS = TransitionDPO(**WEIGHTS, sampling=SAMPLING)
"""D3PO's objective; it draws nothing."""


@dataclass
class DealtTransitions:
    """Steps of trajectories that both processes sample alike from the policy; each trains on its rows of every 4."""

    source: RolloutSource[Any, Any]
    rows: Callable[[int], list[int]]

    @classmethod
    def of(cls, policy: PipelinePolicy, rows: Callable[[int], list[int]]) -> DealtTransitions:
        source = trajectory_source(
            policy,
            brightness,
            PROMPTS,
            sampling=SAMPLING,
            config=TrajectoryConfig(images_per_prompt=2, prompts_per_rollout=2, min_gap=0.0),
            batch_size=4,
            seed=3,
        )
        return cls(source, rows)

    def next_batch(self) -> StepBatch:
        return step_batch(pair_rows(self.source.next_batch())[torch.tensor(self.rows(0))])

    def metrics(self) -> Mapping[str, float]:
        return self.source.metrics()

    def state(self) -> dict[str, Any]:
        return dict(self.source.state())

    def restore(self, state: dict[str, Any]) -> None:
        self.source.restore(state)


@dataclass
class DealtStepGroups:
    """Steps of groups of images that both processes sample alike; each trains on its rows of every 4."""

    source: RolloutSource[Any, StepGroups]
    rows: Callable[[int], list[int]]

    @classmethod
    def of(cls, policy: PipelinePolicy, rows: Callable[[int], list[int]]) -> DealtStepGroups:
        config = build_config(
            RunConfig,
            {
                "method": "flow-grpo",
                "batch_size": 4,
                "sampling": SAMPLING.model_dump(),
                "groups": {"images_per_prompt": 2, "prompts_per_rollout": 2},
                "step_groups": {"trained_steps": 2},
            },
        )
        supplies = Supplies(policy=policy, prompts=lambda: PROMPTS, judge=lambda: brightness)
        return cls(step_groups.build_source(config, supplies), rows)

    def next_batch(self) -> StepGroups:
        rows = torch.tensor(self.rows(0))
        return replace(self.source.next_batch()[rows], start=torch.arange(len(rows)))

    def metrics(self) -> Mapping[str, float]:
        return self.source.metrics()

    def state(self) -> dict[str, Any]:
        return dict(self.source.state())

    def restore(self, state: dict[str, Any]) -> None:
        self.source.restore(state)


@dataclass
class DealtImages(DealtTransitions):
    """Pairs of images that both processes sample alike from the policy; each trains on its rows of every 4."""

    @classmethod
    def of(cls, policy: PipelinePolicy, rows: Callable[[int], list[int]]) -> DealtImages:
        source = image_source(
            policy,
            brightness,
            PROMPTS,
            packing="pairs",
            sampling=SAMPLING,
            config=GroupConfig(images_per_prompt=3, prompts_per_rollout=2, pairs="all"),
            batch_size=4,
            seed=3,
        )
        return cls(source, rows)

    def next_batch(self) -> ImagePairs:  # type: ignore[override]
        numbers = torch.tensor(self.rows(0))
        return replace(self.source.next_batch()[numbers], pair=numbers, visit=0 * numbers)


class OneByOne:
    """Diffusion-DPO, with a call of the network for each pair."""

    def loss(self, policy: PipelinePolicy, batch: ImagePairs, *, generator: torch.Generator) -> LossOutput:
        outputs = [KEYED.loss(policy, batch[row : row + 1], generator=generator) for row in range(len(batch))]
        names = outputs[0].metrics
        return LossOutput(
            losses=torch.cat([output.losses for output in outputs]),
            metrics={name: torch.cat([output.metrics[name] for output in outputs]) for name in names},
            spreads=outputs[0].spreads,
        )


def look_unevenly(policy: PipelinePolicy, rank: int) -> Callable[[int], None]:
    """Calls the network another number of times on every process, as roll-outs do that keep few pairs."""

    def look(batch: int) -> None:
        with torch.no_grad():
            for _ in range(1 + 2 * rank):
                latents = torch.zeros(1, *policy.latent_shape)
                policy.predict(latents, torch.tensor([5]), policy.encode_prompts(PROMPTS[:1]))

    return look


def brightness(images: Tensor, prompts: Any) -> Tensor:
    return images.mean((1, 2, 3))


class Evaluation(ImageEvaluation):
    """Five images in batches of two, so that two processes have three batches to share."""

    def __init__(self, broken_rank: int | None = None) -> None:
        config = EvaluationConfig(images_per_prompt=1, num_inference_steps=2, guidance_scale=2.0, batch_size=2)
        super().__init__([*PROMPTS, *PROMPTS[:2]], config=config, rewards={"bright": brightness}, metrics={})
        self.broken_rank = broken_rank

    def draw(self, policy: PipelinePolicy, *, rank: int, world: int) -> dict[str, Any]:
        if rank == self.broken_rank:
            raise SeedpoError("the second process cannot draw")
        torch.rand(3)  # what is drawn here must not change the training
        return super().draw(policy, rank=rank, world=world)


def train(
    accelerator: Accelerator,
    path: Path,
    *,
    adapter: str = "lora",
    rows: Any = rows_in_turn,
    max_steps: int = STEPS,
    resume: bool = False,
    look: Callable[[PipelinePolicy, int], Callable[[int], None]] | None = None,
    evaluator: Any = None,
    method: Any = KEYED,
    source: Callable[[PipelinePolicy, Callable[[int], list[int]]], Any] | None = None,
    build: Callable[[], PipelinePolicy] | None = None,
    beta: BetaRule | None = None,
    **changes: Any,
) -> PipelinePolicy:
    """One run; its metrics and checkpoints lie in ``path``."""
    rank, world = accelerator.process_index, accelerator.num_processes
    settings = {"batch_size": 4 // world, "checkpoint_every": 0, "checkpoints_limit": 9, "learning_rate": 1e-3}
    settings |= {"ema_decay": 0.9}
    config = toy_config(**(settings | {"adapter": adapter, "max_steps": max_steps, "evaluate_every": 0} | changes))
    policy = tiny_policy(adapter=adapter) if build is None else build()
    if policy.adapter.frozen is not None:
        policy.adapter.frozen = accelerator.prepare_model(policy.adapter.frozen, evaluation_mode=True)
    if not resume:
        on_main_process(accelerator, lambda: create_run_folder(path, config))
    dealt = rows(rank, world)
    pairs = DealtPairs(policy, dealt, look(policy, rank) if look else lambda batch: None)
    # One of two processes rolls out for batch 0, the other for batch 2.
    pairs.rolls_out = lambda batch: batch == 2 * rank or (world == 1 and batch == 2)
    trained_on = source(policy, dealt) if source else pairs
    trainer: Trainer[Any] = Trainer(
        policy=policy,
        method=method,
        source=trained_on,
        config=config,
        folder=RunFolder.open(path),
        evaluator=evaluator,
        accelerator=accelerator,
        progress=False,
        rule=reference_rule(config, policy, trained_on),
        beta=beta,
    )
    trainer.train(resume="latest" if resume else None)
    return policy


@contextmanager
def sharded() -> Iterator[None]:
    asked = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
    os.environ.update(asked)
    try:
        yield
    finally:
        for name in asked:
            del os.environ[name]


def fail_in_step_2(error: Exception) -> Any:
    def look(policy: PipelinePolicy, rank: int) -> Callable[[int], None]:
        def fail(batch: int) -> None:
            if rank == 1 and batch == 1:
                raise error

        return fail

    return look


UNEVEN: dict[str, Any] = {"rows": rows_unevenly, "look": look_unevenly}
ONLINE: dict[str, Any] = {"source": DealtTransitions.of, "method": TRANSITIONS}
IMAGES: dict[str, Any] = {"source": DealtImages.of}
TEXT: dict[str, Any] = {
    "build": lambda: tiny_policy(lora=LoraForm(text_encoder=True)),
    "evaluator": Evaluation(),
}


class NamedPairs(DealtPairs):
    """The same as a set of its own."""

    def fingerprints(self) -> Mapping[str, dict[str, int | str]]:
        return {"data": {"pairs": "dealt"}}


def with_other_pairs(policy: PipelinePolicy, rows: Callable[[int], list[int]]) -> SourceWithData:
    """The pairs, and those of the anchor `data` beside them, which are later ones of the same kind."""
    data: Any = NamedPairs(policy, lambda batch: rows(batch + 10))
    return SourceWithData(source=DealtPairs(policy, rows), data=data)


OWN: dict[str, dict[str, Any]] = {
    "dspo": {"method": DSPO(beta=0.5, draws=KeyedDraws(seed=1))},
    "mapo": {"method": MaPO(beta=0.1, scale=0.5, steps=20.0, draws=KeyedDraws(seed=1))},
    "kto": {"method": DiffusionKTO(beta=20.0, draws=KeyedDraws(seed=1)), "source": DealtLikes.of},
}
"""Objectives of their own; the baseline of likes is of a micro-batch, which must be the same on one process."""
ANCHORED: dict[str, Any] = {
    "method": Anchored(
        method=KEYED,
        anchors=Anchors(
            config=AnchorConfig(kl=50.0, winner=0.5, data=2.0, data_set="scenes-pairs"),
            form=NoiseForm(),
            draws=KeyedDraws(seed=2),
        ),
    ),
    "source": with_other_pairs,
}
GROUPS: dict[str, Any] = {
    "source": DealtStepGroups.of,
    "method": GRPO(kl_weight=0.1, sampling=SAMPLING, clip_range=0.01),
}


def factored() -> dict[str, Any]:
    """Scaled losers and a beta that falls with the margins of all processes."""
    rule = BetaRule(gradient_factor=0.49, memory=0.5)
    method = NoiseDPO(**WEIGHTS, draws=KeyedDraws(seed=1), loser_scale=LoserScale(mu=0.9, per="pair"), beta=rule)
    return {"method": method, "beta": rule}


USER = SeedpoError("the second process has no reward")


def whole(accelerator: Accelerator, root: Path) -> dict[str, Any]:
    """All weights on both processes."""
    for adapter in ("lora", "full"):
        train(accelerator, root / f"{adapter}-even", adapter=adapter, evaluator=Evaluation())
    train(accelerator, root / "lora-uneven", method=OneByOne(), **UNEVEN)
    train(accelerator, root / "online-uneven", rows=rows_unevenly, **ONLINE)
    train(accelerator, root / "groups-uneven", rows=rows_unevenly, **GROUPS)
    train(accelerator, root / "images-uneven", rows=rows_unevenly, **IMAGES)
    train(accelerator, root / "text-even", **TEXT)
    train(accelerator, root / "anchored-uneven", rows=rows_unevenly, **ANCHORED)
    for name, own in OWN.items():
        train(accelerator, root / f"{name}-own", **own, rows=in_turn)
    train(accelerator, root / "factored-uneven", rows=rows_unevenly, **factored())
    fault, broken = fail_in_step_2(ZeroDivisionError("by zero")), Evaluation(broken_rank=1)
    return {
        "toys": toy_runs(accelerator, root / "toys"),
        "user": message_of(lambda: train(accelerator, root / "user", look=fail_in_step_2(USER))),
        "fault": message_of(lambda: train(accelerator, root / "fault", look=fault)),
        "draw": message_of(lambda: train(accelerator, root / "draw", evaluator=broken)),
    }


def shards(accelerator: Accelerator, root: Path) -> dict[str, str]:
    """A part of the trained weights on each."""
    for adapter in ("lora", "full"):
        parts: dict[str, Any] = {"adapter": adapter, "evaluator": Evaluation()}
        with sharded():
            train(accelerator, root / f"{adapter}-even", **parts, look=look_unevenly)
            train(accelerator, root / f"{adapter}-stopped", **parts, max_steps=1)
            train(accelerator, root / f"{adapter}-stopped", **parts, resume=True)
            train(accelerator, root / f"{adapter}-uneven", adapter=adapter, **UNEVEN)
        # What shards wrote goes on whole, and the other way round.
        train(accelerator, root / f"{adapter}-mixed", adapter=adapter, max_steps=1)
        with sharded():
            train(accelerator, root / f"{adapter}-mixed", adapter=adapter, max_steps=2, resume=True)
        train(accelerator, root / f"{adapter}-mixed", adapter=adapter, resume=True)
    accumulated: dict[str, Any] = {"gradient_accumulation_steps": 2, "batch_size": 1, "rows": one_by_one}
    wrong: dict[str, Any] = {"optimizer": {"name": "adafactor"}}
    calls: dict[str, Any] = {"rows": rows_unevenly, "method": OneByOne()}
    with sharded():
        train(accelerator, root / "full-accumulated", adapter="full", **accumulated)
        train(accelerator, root / "online-even", **ONLINE)
        train(accelerator, root / "anchored-even", **ANCHORED)
        train(accelerator, root / "text-even", **TEXT)
        train(accelerator, root / "text-stopped", **TEXT, max_steps=1)
        train(accelerator, root / "text-stopped", **TEXT, resume=True)
        return {
            "user": message_of(lambda: train(accelerator, root / "user", look=fail_in_step_2(USER))),
            "calls": message_of(lambda: train(accelerator, root / "calls", **calls)),
            "optimizer": message_of(lambda: train(accelerator, root / "optimizer", **wrong)),
        }


def forms(folder: Path) -> dict[str, Callable[[], PipelinePolicy]]:
    """Policies with other adapters than the usual one; ``folder`` holds the LoRA of :func:`published_lora`."""
    keys: dict[str, dict[str, Any]] = {
        "dora": {"lora_dora": True, "lora_alpha": 6.0, "lora_targets": ["all"]},
        "dropout": {"lora_dropout": 0.5, "lora_alpha": 6.0},
        "continued": {"initial_lora": str(folder)},
        "int8": {"base_precision": "int8", "lora_alpha": 6.0},
        "nf4": {"base_precision": "nf4", "lora_dora": True},
        "text": {"lora_text_encoder": True, "lora_alpha": 6.0},
    }
    return {name: partial(build_policy, build_config(ModelSettings, some)) for name, some in keys.items()}


def published_lora(folder: Path) -> None:
    """A LoRA of the embedded model that changes its images."""
    move(build_policy(build_config(ModelSettings, {"lora_rank": 3, "lora_alpha": 6.0}))).save(folder)


def adapters(accelerator: Accelerator, root: Path) -> dict[str, Any]:
    """The run of each form, and the same stopped and resumed."""
    on_main_process(accelerator, lambda: published_lora(root / "theirs"))
    for name, build in forms(root / "theirs").items():
        train(accelerator, root / f"{name}-whole", build=build)
        train(accelerator, root / f"{name}-stopped", build=build, max_steps=1)
        train(accelerator, root / f"{name}-stopped", build=build, resume=True)
    return {}


REFERENCES: dict[str, dict[str, Any]] = {
    "ema": {"reference": {"kind": "ema", "decay": 0.5}},
    "full": {"reference": {"kind": "ema", "decay": 0.5, "decay_rise": 0.2}, "adapter": "full"},
    "rollout": {"reference": {"kind": "rollout"}},
    "reset": {"reference": {"kind": "reset", "every": 2}},
    "distance": {"reference": {"kind": "reset", "distance": 1e-7}, "rows": rows_unevenly, "look": look_unevenly},
}
"""Runs whose reference moves."""


def references(accelerator: Accelerator, root: Path) -> dict[str, Any]:
    """The run of each kind, and the same stopped and resumed."""
    for name, changes in REFERENCES.items():
        train(accelerator, root / f"{name}-whole", **changes)
        train(accelerator, root / f"{name}-stopped", max_steps=2, **changes)
        train(accelerator, root / f"{name}-stopped", resume=True, **changes)
    return {}


def main(layout: str, root: Path) -> None:
    torch.use_deterministic_algorithms(True)
    accelerator = cpu_accelerator(toy_config())
    results = {"whole": whole, "shards": shards, "adapters": adapters, "references": references}[layout](
        accelerator, root
    )
    (root / f"results-{accelerator.process_index}.json").write_text(json.dumps(results))


def one_by_one(rank: int, world: int) -> Callable[[int], list[int]]:
    """The rows of :func:`rows_in_turn` in batches half as large."""
    whole = rows_in_turn(rank, world)
    return lambda batch: whole(batch // 2)[batch % 2 :: 2]


if __name__ == "__main__":
    faulthandler.dump_traceback_later(280, exit=True)  # Nobody waits for a run that hangs.
    main(sys.argv[1], Path(sys.argv[2]))
