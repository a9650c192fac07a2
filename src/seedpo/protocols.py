"""What the layers expect of each other: a policy, a method, a source, a reward.

Siblings never import one another; they meet in these protocols and are joined in :mod:`seedpo.training.run`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeVar, runtime_checkable

if TYPE_CHECKING:  # whoever reads data to look at them needs no torch
    import torch
    from PIL.Image import Image
    from torch import Tensor, nn

    from seedpo.core.processes import Process
    from seedpo.core.types import Conditioning, ImagePairs, Likes, LossOutput

Batch = TypeVar("Batch")
BatchIn = TypeVar("BatchIn", contravariant=True)
BatchOut = TypeVar("BatchOut", covariant=True)

Images: TypeAlias = "Tensor | Sequence[Image]"
"""Images (B, 3, H, W) in [0, 1] of any floating type, or B images as PIL holds them, whose sizes may differ."""

State = dict[str, Any]
"""What a component needs to go on where it stopped: tensors and JSON values, in nested dictionaries."""


Fingerprint = dict[str, int | str]
"""What tells some data from others, by the name of the fact; see :mod:`seedpo.data.pairs.fingerprints`."""


@runtime_checkable
class Denoiser(Protocol):
    """A text-to-image latent diffusion model, seen through four calls."""

    @property
    def process(self) -> Process:
        """How latents are noised, and how a sampler takes one step."""

    @property
    def conditioning_type(self) -> type[Conditioning]:
        """What :meth:`encode_prompts` gives and :meth:`predict` takes."""

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of one latent image: (C, H, W), or (L, C) where the model packs it."""

    @property
    def device(self) -> torch.device:
        """Where latents are expected."""

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """Embeds prompts, one row each."""

    def predict(self, latents: Tensor, timestep: Tensor, conditioning: Any) -> Tensor:
        """The network's raw prediction for latents (B, ...) at time steps (B,): (B, ...)."""

    def encode_images(self, images: Tensor) -> Tensor:
        """Latents (B, ...) of images (B, 3, height, width) in [0, 1]."""

    def decode(self, latents: Tensor) -> Tensor:
        """Images (B, 3, height, width) in [0, 1] of latents (B, ...)."""


@runtime_checkable
class TrainedDenoiser(Denoiser, Protocol):
    """A denoiser that was trained, and knows the model before training."""

    def initial(self) -> AbstractContextManager[None]:
        """Within this context the model answers as it did before training, without gradient."""

    def at_strength(self, strength: float) -> AbstractContextManager[None]:
        """Within this context the trained weights have another strength: 0 is the model before training, 1 as trained.

        Raises:
            ConfigError: if they are of a kind that has no strength but 1.
        """


@runtime_checkable
class DistributionEncoder(Protocol):
    """A denoiser whose autoencoder gives a distribution of latents."""

    def encode_distribution(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (B, ...) of the latents of images (B, 3, height, width) in [0, 1]."""


class Trainable(Protocol):
    """Something that the trainer trains."""

    module: nn.Module
    """The trained network; the trainer may replace it by a wrapper with the same call."""

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """Names and tensors of the parameters that are trained, in a fixed order."""

    def save(self, folder: Path) -> None:
        """Writes the trained weights, in the format of the library that others read them with."""

    def load(self, folder: Path) -> None:
        """Reads what :meth:`save` wrote into the very tensors that are trained; nothing else moves."""


@runtime_checkable
class Policy(Denoiser, Trainable, Protocol):
    """A denoiser that is trained, together with its reference and the model that it started from."""

    def reference(self) -> AbstractContextManager[None]:
        """Within this context ``predict`` answers as the present reference does, without gradient."""

    def initial(self) -> AbstractContextManager[None]:
        """Within this context ``predict`` answers as the model before training does, without gradient."""


class MovableReference(Trainable, Protocol):
    """A model whose reference can follow it."""

    def reference(self) -> AbstractContextManager[None]:
        """Within this context ``save`` writes the weights of the reference, once it was moved."""

    def move_reference(self) -> None:
        """Makes the present weights the reference."""

    def average_reference(self, decay: float) -> None:
        """The reference becomes ``decay`` times itself plus the rest of the weights; it must have been moved before."""


@runtime_checkable
class RollsOut(Protocol):
    """A source that draws what it judges."""

    def rolls_out_within(self, batches: int) -> bool:
        """Whether so many batches need another roll-out."""


class Method(Protocol[BatchIn]):
    """An objective on one kind of batch and of model: a preference objective trains a :class:`Policy`."""

    def loss(self, policy: Any, batch: BatchIn, *, generator: torch.Generator) -> LossOutput:
        """Losses and metrics of a batch of pairs."""


@runtime_checkable
class JointMethod(Protocol[BatchIn]):
    """A method whose losses may depend on the batches of all processes."""

    @property
    def exchanges(self) -> bool:
        """Whether they do; otherwise :meth:`Method.loss` is all that is needed."""

    def judged(self, policy: Any, batch: BatchIn, *, generator: torch.Generator) -> Any:
        """What the network says of a batch of this process; it may fail on one process alone."""

    def joint_loss(self, judged: Any) -> LossOutput:
        """Losses and metrics of the batch of this process; every process must call it together."""


class Source(Protocol[BatchOut]):
    """Where pairs come from."""

    def next_batch(self) -> BatchOut:
        """The next ``batch_size`` pairs."""

    def metrics(self) -> Mapping[str, float]:
        """What the source observed since the last call (mean reward of roll-outs, share of pairs kept, ...)."""

    def state(self) -> State:
        """Everything needed to go on from here with the same pairs."""

    def restore(self, state: State) -> None:
        """Takes back what :meth:`state` gave."""


@dataclass(frozen=True, kw_only=True)
class EarlierProcesses:
    """Where the processes of a run stopped whose number is another now.

    Attributes:
        states: of the source of each, by rank.
        batch_size: pairs of a batch of each.
        batches: micro-batches of an update of each.
    """

    states: Sequence[State]
    batch_size: int
    batches: int

    def of(self, part: str) -> EarlierProcesses:
        """The same of a part of the source, by its name in the states."""
        return replace(self, states=[state[part] for state in self.states])


@runtime_checkable
class TakesOver(Protocol):
    """A source that can go on where those of another number of processes stopped."""

    def take_over(self, earlier: EarlierProcesses, *, seed: int) -> None:
        """Takes this process's share of what those processes have left to do; nothing is lost, and nothing comes twice.

        Args:
            earlier: where they stopped.
            seed: of what this process draws from now on, its own.
        """


@runtime_checkable
class DataReader(Protocol):
    """A source or an evaluator that can tell the data which it reads from others."""

    def fingerprints(self) -> Mapping[str, Fingerprint]:
        """Fingerprints of what is read, by the configuration key that names it."""


@dataclass(frozen=True, kw_only=True)
class LabelledPair:
    """Two images of one prompt, as a person judged them; or one, which somebody liked or not.

    Attributes:
        prompt: what the images were made for.
        chosen: the preferred image, or the only one, (3, H, W) in [0, 1].
        rejected: the other image, of the same size; ``None`` for a like.
        chosen_probability: 1 for a preference, 0.5 for a tie; of a like 1, or 0 if the image is not liked.
        original_size: height and width of the preferred image before it was resized, in pixels.
        crop: rows and columns that were cut away above and to the left, in pixels of the resized image.
        gap: reward of the preferred image less that of the other; ``None`` if nothing scored them.
    """

    prompt: str
    chosen: Tensor
    rejected: Tensor | None = None
    chosen_probability: float = 1.0
    original_size: tuple[int, int]
    crop: tuple[int, int] = (0, 0)
    gap: float | None = None

    @property
    def images(self) -> tuple[Tensor, ...]:
        """The preferred image and the other one; of a like its one."""
        return (self.chosen,) if self.rejected is None else (self.chosen, self.rejected)


class PreferencePairs(Protocol):
    """A set of labelled pairs."""

    @property
    def sequential(self) -> bool:
        """Whether the pairs come from a stream, which is shuffled already and starts again at its end.

        Such pairs are asked for in ascending order, 0, 1, 2, ..., and their length is not a count.
        """

    def __len__(self) -> int:
        """Number of pairs."""

    def one_pass(self) -> Iterable[int]:
        """Numbers of all pairs; of a stream those of its first pass, which is read on the way."""

    def __getitem__(self, row: int) -> LabelledPair:
        """One pair.

        Raises:
            DataError: if it cannot be read; the message names the file, the row and what is wrong.
        """

    def prompt(self, row: int) -> str:
        """What both images of a pair were made for, without decoding them.

        Raises:
            DataError: if it cannot be read.
        """

    def content(self, row: int) -> str:
        """SHA-256 of all that the row's :class:`LabelledPair` depends on, without decoding its images.

        That is: the bytes of both image files, prompt and label, every setting of reading, resizing and cropping, and
        the version of how that is done.

        Raises:
            DataError: if it cannot be read.
        """


class RowEncoder(Protocol[BatchOut]):
    """A set of labelled pairs or of likes, seen as latents and embedded prompts."""

    def __len__(self) -> int:
        """Number of rows."""

    def encode(self, rows: Sequence[int], mirrored: Sequence[bool], emptied: Sequence[bool] = ()) -> BatchOut:
        """Rows ready for training.

        Args:
            rows: their numbers.
            mirrored: whether the images of each are mirrored left to right.
            emptied: whether each has the empty prompt in place of its own; of no length: none has.
        """


PairEncoder: TypeAlias = "RowEncoder[ImagePairs]"
"""A set of labelled pairs, seen as latents and embedded prompts."""


class LikesEncoder(Protocol):
    """A set of likes, seen as latents and embedded prompts."""

    def __len__(self) -> int:
        """Number of likes."""

    def encode_likes(self, rows: Sequence[int], mirrored: Sequence[bool], emptied: Sequence[bool] = ()) -> Likes:
        """Single images ready for training; see :meth:`RowEncoder.encode`."""


class ReferenceCache(Protocol):
    """Log-probabilities under the reference that were computed before, by all that they depend on."""

    def find(self, content: Tensor, timestep: Tensor, noise: Tensor) -> Tensor | None:
        """Those of chosen and rejected images, (2, B) float64 on the CPU; none unless all are known.

        Args:
            content: of :class:`seedpo.core.types.ImagePairs`, (B, 32) uint8.
            timestep: (B,) int64, on the CPU.
            noise: (B, C, H, W), on the CPU.
        """

    def keep(self, content: Tensor, timestep: Tensor, noise: Tensor, log_probs: Tensor) -> None:
        """Stores log-probabilities (2, B) for :meth:`find`."""


@runtime_checkable
class Releasable(Protocol):
    """A model that can do without some of its parts on the device."""

    def release(self, *parts: Literal["text_encoder", "vae"]) -> None:
        """Keeps parts in main memory from now on; a call that needs one still works, but slower."""


@runtime_checkable
class StatefulPairs(PreferencePairs, Protocol):
    """Labelled pairs that observe something while they are read; a source keeps their state with its own."""

    def metrics(self) -> Mapping[str, float]:
        """What was observed so far."""

    def state(self) -> State:
        """What was observed so far, as JSON values."""

    def restore(self, state: State) -> None:
        """Takes back what :meth:`state` gave."""

    def take_over(self, states: Sequence[State]) -> None:
        """Takes what several processes observed together."""


class Features(Protocol):
    """What turns images into vectors, in which their likeness can be measured."""

    def __call__(self, images: Images) -> Tensor:
        """Vectors (B, D) float32, on the CPU, of B images."""


class Reward(Protocol):
    """A scorer of images."""

    def __call__(self, images: Images, prompts: Sequence[str]) -> Tensor:
        """Scores (B,) float32, higher is better, of B images, each with its prompt."""


@runtime_checkable
class LaterReward(Reward, Protocol):
    """A scorer that need not be waited for."""

    def later(self, images: Images, prompts: Sequence[str]) -> Callable[[], Tensor]:
        """Begins to score, and returns what waits for the scores (B,) and gives them."""


@runtime_checkable
class Comparisons(Protocol):
    """A judge of every two images of a prompt, who may have no preference; one score per image cannot say as much."""

    def compare(self, images: Images, prompts: Sequence[str]) -> Tensor:
        """Probability that the first of two images is preferred, less that of the second.

        Args:
            images: P K images, K of each prompt in succession.
            prompts: one for each image.

        Returns:
            (P, K, K) float32 in [-1, 1] on the CPU, antisymmetric; 0 where neither is preferred.
        """


class StepAwareReward(Protocol):
    """A scorer of the predicted clean images of noisy latents."""

    def __call__(self, images: Images, prompts: Sequence[str], *, timestep: Tensor | None = None) -> Tensor:
        """Scores (B,) float32 of B previews; without times, of finished images.

        Args:
            images: the previews, (B, 3, height, width) in [0, 1].
            prompts: one for each.
            timestep: when they were made, (B,) int64, as :meth:`seedpo.core.processes.Process.embedded_time` counts.
        """


@runtime_checkable
class LatentReward(Protocol):
    """A scorer of the noisy latents themselves: nothing is predicted and decoded for it."""

    def score_latents(self, latents: Tensor, prompts: Sequence[str], *, timestep: Tensor) -> Tensor:
        """Scores (B,) float32 of B noisy latents, higher is better; differences count within a prompt and a time.

        Args:
            latents: as the policy that is sampled has them, (B, ...).
            prompts: one for each.
            timestep: of the latents, (B,), as the policy's process counts; 0 or less: clean latents.
        """

    def misfit(self, policy: Denoiser) -> str | None:
        """Why it cannot read a policy's latents, in words; ``None`` if it can."""


class Evaluator(Protocol):
    """What the trainer calls at evaluations."""

    def __call__(self, policy: Any, *, step: int, folder: Path) -> Mapping[str, float]:
        """Looks at what is trained, and returns the figures to log; images and the like are stored in ``folder``."""


@runtime_checkable
class SharedEvaluator(Evaluator, Protocol):
    """An evaluator whose images several processes can draw together."""

    def draw(self, policy: Any, *, rank: int, world: int) -> State:
        """The part of process ``rank`` of ``world`` of what is looked at; nothing is exchanged here."""

    def measure(self, parts: Sequence[State], *, step: int, folder: Path) -> Mapping[str, float]:
        """What a call gives, from the parts of all processes in the order of their ranks."""
