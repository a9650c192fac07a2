"""The folder of a study: its settings, its groups and its images.

=================  ==================================================================================
``study.yaml``     what a person may edit (:mod:`seedpo.study.settings_file`)
``groups.jsonl``   one group on each line, only ever appended to (:mod:`seedpo.study.groups_file`)
``images/ID.png``  copies without metadata, named by their content (:mod:`seedpo.study.images`)
``votes.db``       by default, the votes
=================  ==================================================================================
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from seedpo.errors import ConfigError, DataError
from seedpo.study import groups_file, settings_file
from seedpo.study.images import ID, Source, add_image
from seedpo.study.records import Candidate, Group
from seedpo.study.settings import Question, StudySettings

__all__ = ["VOTES", "Study", "add_image", "append_groups", "create_study", "open_study", "refreshed"]

VOTES = "votes.db"
"""The database of a study that names no other, in its folder."""

Progress = Callable[[int, int], None]
"""Told how many of how many images are done."""


@dataclass(frozen=True, eq=False)
class Study:
    """An opened study. Two of them are equal only if they are the same object.

    Attributes:
        folder: where it lies.
        settings: ``study.yaml``.
        groups: in the order of ``groups.jsonl``.
        size: bytes of ``groups.jsonl`` that were read.
    """

    folder: Path
    settings: StudySettings
    groups: tuple[Group, ...]
    size: int = 0

    @cached_property
    def by_id(self) -> Mapping[str, Group]:
        """Groups by their ids."""
        return {group.id: group for group in self.groups}

    @cached_property
    def images(self) -> frozenset[str]:
        """Ids of all images that groups name."""
        return frozenset(_images(self.groups))

    def group(self, name: str) -> Group:
        """The group of that id.

        Raises:
            DataError: if there is none.
        """
        if name not in self.by_id:
            raise DataError(f"study {self.folder} has no group {name!r}")
        return self.by_id[name]

    def image(self, name: str) -> Path:
        """File of the image of that id.

        Raises:
            DataError: if no group has such an image, so that no other file can be asked for.
        """
        if name not in self.images:
            raise DataError(f"study {self.folder} has no image {name!r}")
        return _image_path(self.folder, name)

    def question(self, key: str) -> Question:
        """The question of that key.

        Raises:
            DataError: if there is none.
        """
        for question in self.settings.questions:
            if question.key == key:
                return question
        raise DataError(f"study {self.folder} has no question {key!r}")

    @property
    def database_url(self) -> str:
        """Where votes are kept, as SQLAlchemy's URL."""
        return self.settings.database or f"sqlite:///{self.folder.resolve() / VOTES}"


def create_study(
    folder: Path,
    settings: StudySettings,
    groups: Sequence[Group],
    images: Mapping[str, Source],
    *,
    progress: Progress | None = None,
) -> Study:
    """Makes the folder of a study: whole, or not at all.

    Args:
        folder: must not exist, or be empty.
        settings: of the study.
        groups: may name their images as they like, if ``images`` has these names; ids are put in their places.
        images: all images that groups name.
        progress: told after each image.

    Returns:
        The study, as :func:`open_study` gives it.

    Raises:
        ConfigError: if the folder is not empty.
        DataError: if an image cannot be read or is missing, or a group is not such as can be opened.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is there already and not empty; choose another folder for the study")
    aside = folder.parent / f".{folder.name}.{os.getpid()}.tmp"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        (aside / "images").mkdir(parents=True)
        named = _with_ids(aside, groups, images, progress)
        (aside / groups_file.NAME).write_text("", encoding="utf-8")
        groups_file.append_lines(aside / groups_file.NAME, named)
        (aside / settings_file.NAME).write_text(settings_file.settings_text(settings), encoding="utf-8")
        study = open_study(aside, verify=False)
        aside.replace(folder)
    except OSError as error:
        raise DataError(f"study {folder} cannot be written ({error.strerror}); free some space or mend it") from error
    except (ConfigError, DataError) as error:
        raise type(error)(str(error).replace(str(aside), str(folder))) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return replace(study, folder=folder)


def open_study(folder: Path, *, verify: bool = True) -> Study:
    """Reads a study and checks all of it.

    Args:
        folder: of the study.
        verify: whether images are read to see that they are those which were put in (about a second per gigabyte);
            otherwise only that they are there.

    Raises:
        ConfigError: if ``study.yaml`` cannot be used; the message names line and key.
        DataError: if ``groups.jsonl`` or an image cannot be used; the message names line and key, or the file.
    """
    settings = settings_file.read_settings(folder / settings_file.NAME)
    groups, lines, size = groups_file.read_groups(folder / groups_file.NAME)
    _require_questions(folder, settings, groups, lines)
    _require_images(folder, groups, lines, known=frozenset(), verify=verify)
    return Study(folder=folder, settings=settings, groups=groups, size=size)


def refreshed(study: Study) -> Study:
    """The study with the groups that were appended since it was read; itself if there are none.

    Raises:
        DataError: if new groups cannot be used, or if old ones were edited.
    """
    path = study.folder / groups_file.NAME
    try:
        if path.stat().st_size == study.size:
            return study
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    groups, lines, size = groups_file.read_groups(path)
    if size == study.size:
        return study
    if groups[: len(study.groups)] != study.groups:
        raise DataError(f"{path} was edited while the study is open; undo that: new groups may only be appended")
    _require_questions(study.folder, study.settings, groups, lines)
    _require_images(study.folder, groups, lines, known=study.images, verify=True)
    return replace(study, groups=groups, size=size)


def append_groups(folder: Path, groups: Sequence[Group], images: Mapping[str, Source]) -> tuple[Group, ...]:
    """Adds groups to a study, in one write that is on the disk when this returns.

    One process may append at a time; servers may read meanwhile.

    Args:
        folder: of the study.
        groups: new ones; they may name images as :func:`create_study` allows.
        images: images that they name; those that the study has already need not be given, if named by their ids.

    Returns:
        The groups with the ids of their images.

    Raises:
        ConfigError: if the folder holds no study.
        DataError: if an image cannot be read or is missing, an id is taken, or nothing can be written.
    """
    study = open_study(folder, verify=False)
    taken = dict.fromkeys(study.by_id)
    for group in groups:
        if group.id in taken:
            raise DataError(f"study {folder} has a group {group.id!r} already; give each group its own id")
        taken[group.id] = None
    named = _with_ids(folder, groups, images, None)
    lines = [0] * len(named)
    _require_questions(folder, study.settings, named, lines)
    _require_images(folder, named, lines, known=study.images, verify=False)
    groups_file.append_lines(folder / groups_file.NAME, named)
    return named


def _with_ids(
    folder: Path, groups: Sequence[Group], images: Mapping[str, Source], progress: Progress | None
) -> tuple[Group, ...]:
    """Puts the images into the folder and their ids into the groups."""
    ids: dict[str, str] = {}
    for name in _images(groups):
        if name not in images and not ID.fullmatch(name):
            raise DataError(f"image {name!r} is named by a group but not given; give it in images")
    wanted = [name for name in _images(groups) if name in images]
    for done, name in enumerate(wanted, start=1):
        ids[name] = add_image(folder, images[name])
        if progress:
            progress(done, len(wanted))
    return tuple(
        replace(group, candidates=tuple(_renamed(candidate, ids) for candidate in group.candidates)) for group in groups
    )


def _renamed(candidate: Candidate, ids: Mapping[str, str]) -> Candidate:
    return replace(candidate, images=tuple(ids.get(name, name) for name in candidate.images))


def _images(groups: Iterable[Group]) -> Sequence[str]:
    """Names of all images, each once, in the order in which they are met."""
    return list(dict.fromkeys(name for group in groups for member in group.candidates for name in member.images))


def _image_path(folder: Path, name: str) -> Path:
    return folder / "images" / f"{name}.png"


def _place(folder: Path, line: int, group: Group) -> str:
    return f"{folder / groups_file.NAME} line {line}" if line else f"group {group.id!r}"


def _require_questions(folder: Path, settings: StudySettings, groups: Sequence[Group], lines: Sequence[int]) -> None:
    questions = {question.key: question for question in settings.questions}
    for group, line in zip(groups, lines, strict=True):
        place = _place(folder, line, group)
        if group.question not in questions:
            known = ", ".join(questions)
            raise DataError(f"{place}: question {group.question!r} is not in {settings_file.NAME}, which has {known}")
        if len(group.candidates) < 2:
            raise DataError(f"{place}: candidates has {len(group.candidates)}; at least two are compared")
        sizes = {len(candidate.images) for candidate in group.candidates}
        alone = questions[group.question].shows == "image"
        if len(sizes) > 1 or (sizes != {1}) == alone:
            wanted = "one image" if alone else "a reference and as many further images as the others"
            raise DataError(f"{place}: candidates[].images: question {group.question!r} shows {wanted} of each")


def _require_images(
    folder: Path, groups: Sequence[Group], lines: Sequence[int], *, known: frozenset[str], verify: bool
) -> None:
    seen = set(known)
    for group, line in zip(groups, lines, strict=True):
        for name in _images([group]):
            if name in seen:
                continue
            seen.add(name)
            path = _image_path(folder, name)
            if not path.is_file():
                raise DataError(f"{_place(folder, line, group)}: image {name} is missing; put {path} back")
            if verify and _digest(path) != name:
                raise DataError(f"{path} is not the image that was put into the study; put the original back")


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:32]
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
