"""Stand-ins for a run's model, judge, prompts and pairs: they compute nothing and count the rows of each call."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seedpo.core.processes import Process
from seedpo.core.types import Conditioning
from seedpo.protocols import Denoiser, Images, LabelledPair, State

Key = tuple[str, str]
"""An activity, as a plan shows it, and the part that does it; see :mod:`seedpo.planning.costs`."""


@dataclass
class Recorder:
    """Counts rows.

    Attributes:
        rows: so far.
        rows_at_once: of the largest call, by part.
        scoring: why the images that were decoded last are scored.
    """

    rows: Counter[Key] = field(default_factory=Counter)
    rows_at_once: dict[str, int] = field(default_factory=dict)
    scoring: str = "reward"

    def add(self, activity: str, part: str, rows: int) -> None:
        """Counts one call."""
        self.rows[activity, part] += rows
        self.rows_at_once[part] = max(rows, self.rows_at_once.get(part, 0))

    @contextmanager
    def separately(self) -> Iterator[Counter[Key]]:
        """Counts the calls inside in a counter of their own."""
        outside, self.rows = self.rows, Counter()
        try:
            yield self.rows
        finally:
            self.rows = outside


@dataclass(frozen=True, kw_only=True)
class _Blank(Conditioning):
    rows: Tensor


class StandInPolicy:
    """A policy with small latents that predicts zeros.

    Args:
        process: of the run's model.
        recorder: counts its rows.
        checks: whether images are decoded only to check the previews of another autoencoder.
    """

    latent_shape = (4, 4, 4)
    conditioning_type = _Blank
    device = torch.device("cpu")
    module: nn.Module = nn.Module()

    def __init__(self, process: Process, recorder: Recorder, *, checks: bool = False) -> None:
        self.process = process
        self.recorder = recorder
        self.checks = checks
        self._other: str | None = None

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """Counts each distinct prompt once, as policies embed them."""
        self.recorder.add("encoding prompts", "text", len(set(prompts)))
        return _Blank(rows=torch.zeros(len(prompts)))

    def predict(self, latents: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        """Zeros; with gradients the pass is one of training."""
        if self._other is not None:
            self.recorder.add("reference", self._other, len(latents))
        else:
            activity = "policy" if torch.is_grad_enabled() else "sampling"
            self.recorder.add(activity, activity, len(latents))
        return torch.zeros_like(latents)

    def encode_images(self, images: Tensor) -> Tensor:
        """Zeros."""
        self.recorder.add("encoding images", "vae_encode", len(images))
        return torch.zeros(len(images), *self.latent_shape)

    def decode(self, latents: Tensor) -> Tensor:
        """Blank images."""
        self.recorder.scoring = "checking previews" if self.checks else "reward"
        self.recorder.add("checking previews" if self.checks else "decoding", "vae_decode", len(latents))
        return blank_images(len(latents))

    def reference(self) -> AbstractContextManager[None]:
        """Within this context :meth:`predict` counts for the reference."""
        return self._answers("reference")

    def initial(self) -> AbstractContextManager[None]:
        """Within this context :meth:`predict` counts for the model before training, which may have no LoRA."""
        return self._answers("initial")

    def at_strength(self, strength: float) -> AbstractContextManager[None]:
        """A pass takes as long at any strength."""
        return nullcontext()

    @contextmanager
    def _answers(self, part: str) -> Iterator[None]:
        self._other = part
        try:
            with torch.no_grad():
                yield
        finally:
            self._other = None

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """Nothing is trained."""
        return {}

    def save(self, folder: Path) -> None:
        """Nothing is saved."""

    def load(self, folder: Path) -> None:
        """Nothing is loaded."""


def blank_images(count: int) -> Tensor:
    """Images of one pixel, (count, 3, 1, 1)."""
    return torch.zeros(count, 3, 1, 1)


class StandInJudge:
    """Prefers later images of a prompt, except in a share of the pairs, which are too close.

    Args:
        recorder: counts its rows.
        kept: share of the pairs with a preference.
        scores: whether it stands in for a reward; people compute nothing.
    """

    def __init__(self, recorder: Recorder, *, kept: Fraction, scores: bool) -> None:
        self.recorder = recorder
        self.kept = kept
        self.scores = scores
        self._due = Fraction(0)
        self._prompts: set[str] = set()
        self._generator = torch.Generator().manual_seed(0)

    def __call__(self, images: Images, prompts: Sequence[str], *, timestep: Tensor | None = None) -> Tensor:
        """Scores (B,), equal for all images of a prompt without a preference."""
        return self.ranks(prompts, part="scorer_image")

    def ranks(self, prompts: Sequence[str], *, part: str) -> Tensor:
        """Scores (B,) of what a part of the reward sees: images, or latents."""
        self._count(prompts, part)
        count = len(set(prompts))
        ranks = torch.arange(len(prompts) // count, dtype=torch.float32) * 100.0
        return (self._clear(count)[:, None] * ranks).flatten()

    def compare(self, images: Images, prompts: Sequence[str]) -> Tensor:
        """Preferences (P, K, K); 0 for a pair without one."""
        self._count(prompts, "scorer_image")
        count = len(set(prompts))
        size = len(prompts) // count
        first, second = torch.triu_indices(size, size, offset=1)
        preferences = torch.zeros(count, size, size)
        preferences[:, first, second] = self._clear(count * len(first)).view(count, -1)
        return preferences - preferences.transpose(1, 2)

    def _count(self, prompts: Sequence[str], part: str) -> None:
        if not self.scores:
            return
        self.recorder.add(self.recorder.scoring, part, len(prompts))
        self.count_text(prompts)

    def count_text(self, prompts: Sequence[str]) -> None:
        """Counts each prompt once, as rewards embed them."""
        if new := set(prompts) - self._prompts:
            self.recorder.add(self.recorder.scoring, "scorer_text", len(new))
            self._prompts |= new

    def _clear(self, count: int) -> Tensor:
        """1 for pairs with a preference, (count,): exactly the share over many calls, at random places."""
        self._due += count * self.kept
        clear = math.floor(self._due)
        self._due -= clear
        return (torch.randperm(count, generator=self._generator) < clear).float()


class StandInLatentJudge:
    """The same judge of noisy latents.

    Args:
        judge: ranks, and counts.
        guided: whether it reads the empty prompt, too.
    """

    def __init__(self, judge: StandInJudge, *, guided: bool) -> None:
        self.judge = judge
        self.guided = guided

    def misfit(self, policy: Denoiser) -> str | None:
        """It fits."""
        return None

    def score_latents(self, latents: Tensor, prompts: Sequence[str], *, timestep: Tensor) -> Tensor:
        """Scores (B,), equal for all latents of a prompt without a preference."""
        if self.guided:
            self.judge.count_text([""])
        return self.judge.ranks(prompts, part="scorer_latent")


class StandInOpinion:
    """A reward that is not optimised, and prefers nothing.

    Args:
        recorder: counts its rows.
        name: of the reward.
    """

    def __init__(self, recorder: Recorder, *, name: str) -> None:
        self.recorder = recorder
        self.name = name
        self._prompts: set[str] = set()

    def __call__(self, images: Images, prompts: Sequence[str], *, timestep: Tensor | None = None) -> Tensor:
        """Zeros (B,)."""
        self.recorder.add("second opinions", f"scorer_image:{self.name}", len(prompts))
        if new := set(prompts) - self._prompts:
            self.recorder.add("second opinions", f"scorer_text:{self.name}", len(new))
            self._prompts |= new
        return torch.zeros(len(prompts))


class StandInFeatures:
    """Features of images; their network is not counted."""

    def __call__(self, images: Images) -> Tensor:
        """Vectors (B, 2), no two of which are alike."""
        angles = torch.arange(len(images)) / len(images)
        return torch.stack([angles.cos(), angles.sin()], 1)


class BlankPrompts(Sequence[str]):
    """More prompts than are needed, all different."""

    def __len__(self) -> int:
        """A large number."""
        return 2**16

    def __getitem__(self, index: Any) -> Any:
        """One prompt."""
        return f"prompt {index}"


class BlankPairs:
    """Labelled pairs or likes of one pixel, all prompts different.

    Args:
        count: number of pairs.
        images: of each, 2 or 1.
    """

    sequential = False

    def __init__(self, count: int, *, images: int = 2) -> None:
        self.count = count
        self.images = images

    def __len__(self) -> int:
        """Number of pairs."""
        return self.count

    def one_pass(self) -> Iterable[int]:
        """All rows."""
        return range(self.count)

    def __getitem__(self, row: int) -> LabelledPair:
        """One pair."""
        blank = blank_images(1)[0]
        other = blank if self.images > 1 else None
        return LabelledPair(prompt=self.prompt(row), chosen=blank, rejected=other, original_size=(1, 1))

    def prompt(self, row: int) -> str:
        """Its prompt."""
        return f"prompt {row}"

    def content(self, row: int) -> str:
        """Its number."""
        return str(row)

    def metrics(self) -> Mapping[str, float]:
        """Nothing is observed."""
        return {}

    def state(self) -> State:
        """Nothing is kept."""
        return {}

    def restore(self, state: State) -> None:
        """Nothing is taken back."""

    def take_over(self, states: Sequence[State]) -> None:
        """Nothing is taken."""
