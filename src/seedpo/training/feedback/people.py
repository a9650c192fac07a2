"""The judge that asks people: images go into a study, and their votes come back as preferences."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from seedpo.errors import ConfigError, DataError
from seedpo.processes import is_one_of_several
from seedpo.protocols import Images
from seedpo.study.folder import Study, append_groups, open_study
from seedpo.study.images import add_image
from seedpo.study.preferences import preferences
from seedpo.study.records import Candidate, Form, Group, Judgement
from seedpo.study.settings import Question
from seedpo.training.feedback.waiting import VoteBar, Wait
from seedpo.training.interrupt import stop_on_signal

logger = logging.getLogger(__name__)


Pixels = NDArray[np.uint8]
"""An 8-bit RGB image, (H, W, 3)."""


@dataclass(frozen=True)
class ImageGroup:
    """The images of one prompt, as they go into a study.

    Attributes:
        id: of the group: a hash of question, prompt and pixels, so that the same images make the same group.
        question: key of the question.
        prompt: of the images.
        images: the distinct images among the K, as (H, W, 3).
        places: index into ``images`` of each of the K images.
    """

    id: str
    question: str
    prompt: str
    images: tuple[Pixels, ...]
    places: tuple[int, ...]

    @classmethod
    def of(cls, question: str, prompt: str, pixels: Sequence[Pixels]) -> ImageGroup:
        """The group of the K images (H, W, 3) of a prompt."""
        names = [hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).hexdigest() for image in pixels]
        distinct = dict(zip(reversed(names), reversed(pixels), strict=True))
        order = list(dict.fromkeys(names))
        digest = hashlib.sha256(json.dumps([question, prompt, names]).encode()).hexdigest()
        return cls(
            id=digest[:32],
            question=question,
            prompt=prompt,
            images=tuple(distinct[name] for name in order),
            places=tuple(order.index(name) for name in names),
        )

    def add_to(self, folder: Path, source: str) -> Group:
        """Puts the images into the study's folder; the group that names them."""
        ids = [add_image(folder, Image.fromarray(image)) for image in self.images]
        candidates = tuple(Candidate(source=source, images=(name,)) for name in ids)
        return Group(id=self.id, question=self.question, prompt=self.prompt, candidates=candidates)

    def preferences(self, judgements: Sequence[Judgement]) -> NDArray[np.float32]:
        """Preferences (K, K) of the first image over the second; 0 between copies of one image."""
        among_distinct = preferences(judgements, candidates=len(self.images))
        places = list(self.places)
        return among_distinct[np.ix_(places, places)].astype(np.float32)


def pixels_of(images: Images) -> list[Pixels]:
    """Images (B, 3, H, W) in [0, 1], or PIL images, as people see them."""
    if isinstance(images, Tensor):
        levels = (images.detach().float() * 255.0).round().clamp(0.0, 255.0).to(torch.uint8)
        return list(levels.permute(0, 2, 3, 1).contiguous().cpu().numpy())
    return [np.asarray(image.convert("RGB")) for image in images]


class HumanFeedback:
    """Asks people which of every two images of a prompt they prefer, and waits for their votes.

    Args:
        study: folder of the study.
        images_per_prompt: K, at least 2.
        question: key of the question; ``None``: the only one.
        form: in which it must be asked; ``None``: any that compares images.
        source: what the study notes as the origin of the images; raters never see it.
        poll_seconds: between two looks at the votes.
        timeout_hours: without a new vote, after which :class:`NoVotes` is raised; ``None``: never.
        progress: whether to show a progress bar while it waits.

    Raises:
        ConfigError: if the study's settings cannot be used, or the question is not one of it.
        DataError: if its groups or images cannot be used.
    """

    def __init__(
        self,
        study: Path,
        *,
        images_per_prompt: int,
        question: str | None = None,
        form: Form | None = None,
        source: str = "policy",
        poll_seconds: float = 2.0,
        timeout_hours: float | None = None,
        progress: bool = True,
    ) -> None:
        require_extra()
        self.folder = study
        self.images_per_prompt = images_per_prompt
        self.source = source
        self.poll_seconds = poll_seconds
        self.timeout_hours = timeout_hours
        self.progress = progress
        self.question = _question(open_study(study), question, form).key

    def __call__(self, images: Images, prompts: Sequence[str]) -> Tensor:
        """Scores (B,) float32 in [-1, 1]: an image's mean preference over the others of its prompt.

        Args:
            images: as for :meth:`compare`.
            prompts: as for :meth:`compare`.
        """
        return self.compare(images, prompts).sum(2).flatten() / (self.images_per_prompt - 1)

    def compare(self, images: Images, prompts: Sequence[str]) -> Tensor:
        """Share of raters who prefer the first of two images, less the share who prefer the second.

        Args:
            images: (P K, 3, H, W) in [0, 1], or as many PIL images: K consecutive ones per prompt.
            prompts: one for each image.

        Returns:
            (P, K, K) float32 in [-1, 1], antisymmetric; 0 for ties, "both bad" and skipped pairs. See
            :func:`seedpo.study.preferences.preferences` for pairs that nobody judged.

        Raises:
            TrainingInterrupted: after SIGINT or SIGTERM while it waits.
            NoVotes: after ``timeout_hours`` without a vote.
            SeedpoError: if the study or its votes cannot be read or written.
        """
        count = self.images_per_prompt
        pixels = pixels_of(images)
        groups = [
            ImageGroup.of(self.question, prompts[start], pixels[start : start + count])
            for start in range(0, len(pixels), count)
        ]
        study = self._add(groups)
        votes = self._votes([study.group(group.id) for group in groups if group.id in study.by_id], study)
        return torch.stack([torch.from_numpy(group.preferences(votes.get(group.id, ()))) for group in groups])

    def _add(self, groups: Sequence[ImageGroup]) -> Study:
        """The study, with those of the groups that it did not have yet."""
        with _study_locked(self.folder / "groups.jsonl"):
            known = open_study(self.folder, verify=False).by_id
            new = {group.id: group for group in groups if group.id not in known and len(group.images) > 1}
            if new:
                append_groups(self.folder, [group.add_to(self.folder, self.source) for group in new.values()], {})
        return open_study(self.folder, verify=False)

    def _votes(self, groups: Sequence[Group], study: Study) -> Mapping[str, Sequence[Judgement]]:
        """All judgements on these groups, by group; waits until every wanted vote has arrived."""
        from seedpo.study.votes.store import Store

        wait = Wait(groups, study, poll_seconds=self.poll_seconds, timeout_hours=self.timeout_hours)
        store = Store.open(study, write=False)
        try:
            if wait.is_over(store):
                return wait.by_group
            logger.info("%s", wait.instructions())
            with stop_on_signal() as stop, VoteBar(wait, shown=self.progress) as bar:
                while not wait.is_over(store):
                    bar.show()
                    wait.nap(stop)
                wait.heed(stop)
            if is_one_of_several():
                logger.info(
                    "the votes on this process's images have arrived; the other processes wait for theirs, if any"
                )
            return wait.by_group
        finally:
            store.close()


def require_extra() -> None:
    """Checks that the packages of studies are installed.

    Raises:
        ConfigError: naming the package and how to install it.
    """
    if importlib.util.find_spec("sqlalchemy") is None:
        raise ConfigError("votes are read with sqlalchemy, which is missing: pip install 'seedpo[study]'")


def _question(study: Study, key: str | None, form: Form | None) -> Question:
    questions = {question.key: question for question in study.settings.questions}
    known = ", ".join(questions)
    if key is None and len(questions) > 1:
        raise ConfigError(f"{study.folder} asks several questions; set feedback.question to one of {known}")
    if key is not None and key not in questions:
        raise ConfigError(f"feedback.question = {key}: {study.folder} asks {known}")
    question = questions[next(iter(questions)) if key is None else key]
    if question.shows != "image":
        raise ConfigError(f"question {question.key} of {study.folder} shows sets of images; one image a side is needed")
    asked = f"question {question.key} of {study.folder}"
    if question.form == "single":
        raise ConfigError(f"{asked} asks for likes; name one that compares images in feedback.question")
    if form is not None and question.form != form:
        raise ConfigError(
            f"feedback.form = {form}: {asked} has form {question.form}; leave the key out, or name a new folder"
        )
    return question


@contextmanager
def _study_locked(path: Path) -> Iterator[None]:
    """Inside, no other process of seedpo that trains appends to the study.

    Raises:
        DataError: if there is no such file, or it cannot be locked.
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("r+b"))  # network file systems lock only what may be written
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise DataError(
                f"{path} cannot be locked ({error.strerror}); see that the study is there and may be written, "
                "and continue with --resume latest"
            ) from error
        yield
