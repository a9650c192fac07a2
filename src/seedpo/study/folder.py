"""The folder of a study: its settings, its groups and its images.

=================  ===============================================================================
``study.yaml``     what a person may edit (:mod:`seedpo.study.settings`)
``groups.jsonl``   one group per line, only appended to
``images/ID.png``  copies without metadata, named by their content (:mod:`seedpo.study.images`)
``votes.db``       the votes, unless ``study.yaml`` names another database
``.server-key``    the key of the web application (:mod:`seedpo.study.web.security`)
=================  ===============================================================================
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError
from tqdm import tqdm

from seedpo.documents import parse_json
from seedpo.errors import ConfigError, DataError
from seedpo.files import read_bytes
from seedpo.study import settings as settings_file
from seedpo.study.images import ID, Source, add_image, image_id
from seedpo.study.records import Candidate, Form, Group
from seedpo.study.settings import Question, StudySettings

GROUPS = "groups.jsonl"
VOTES = "votes.db"
KEY_FILE = ".server-key"


@dataclass(frozen=True, eq=False)
class Study:
    """An opened study. Two studies are equal only if they are the same object.

    Attributes:
        folder: of the study.
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
        return frozenset(_image_names(self.groups))

    def group(self, name: str) -> Group:
        """The group with this id.

        Raises:
            DataError: there is none.
        """
        if name not in self.by_id:
            raise DataError(f"study {self.folder} has no group {name!r}")
        return self.by_id[name]

    def image(self, name: str) -> Path:
        """File of the image with this id.

        Raises:
            DataError: no group has such an image; no other file can be reached this way.
        """
        if name not in self.images:
            raise DataError(f"study {self.folder} has no image {name!r}")
        return _image_path(self.folder, name)

    def question(self, key: str) -> Question:
        """The question with this key.

        Raises:
            DataError: there is none.
        """
        for question in self.settings.questions:
            if question.key == key:
                return question
        raise DataError(f"study {self.folder} has no question {key!r}")

    @property
    def database_url(self) -> str:
        """SQLAlchemy's URL of the votes."""
        return self.settings.database or f"sqlite:///{self.folder.resolve() / VOTES}"


def create_study(
    folder: Path,
    settings: StudySettings,
    groups: Sequence[Group],
    images: Mapping[str, Source],
    *,
    progress: bool = False,
) -> Study:
    """Makes the folder of a study, whole or not at all.

    Args:
        folder: must not exist, or be empty.
        settings: of the study.
        groups: may name images by the keys of ``images``; ids take their places.
        images: all images that groups name.
        progress: show a bar while images are copied.

    Returns:
        The study as :func:`open_study` gives it.

    Raises:
        ConfigError: the folder is not empty.
        DataError: an image is missing or cannot be read, or a group is not valid.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} exists and is not empty; choose another folder for the study")
    aside = folder.parent / f".{folder.name}.{os.getpid()}.tmp"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        (aside / "images").mkdir(parents=True)
        stored_groups = _with_ids(aside, groups, images, progress=progress)
        (aside / GROUPS).write_text("", encoding="utf-8")
        _append_lines(aside / GROUPS, stored_groups)
        (aside / settings_file.NAME).write_text(settings_file.settings_text(settings), encoding="utf-8")
        study = open_study(aside, verify=False)
        aside.replace(folder)
    except OSError as error:
        raise DataError(f"study {folder} cannot be written ({error.strerror}); free some space or fix it") from error
    except (ConfigError, DataError) as error:
        raise type(error)(str(error).replace(str(aside), str(folder))) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return replace(study, folder=folder)


def open_study(folder: Path, *, verify: bool = True) -> Study:
    """Reads and checks a study.

    Args:
        folder: of the study.
        verify: read all images and compare them with their ids (about a second per gigabyte); otherwise only check
            that the files exist.

    Raises:
        ConfigError: ``study.yaml`` is not valid; the message names line and key.
        DataError: ``groups.jsonl`` or an image is not valid; the message names line and key, or the file.
    """
    settings = settings_file.read_settings(folder / settings_file.NAME)
    groups, size = read_groups(folder / GROUPS)
    _require_valid(folder, settings, groups, known=frozenset(), verify=verify)
    _require_models(folder, settings, groups.values())
    return Study(folder=folder, settings=settings, groups=tuple(groups.values()), size=size)


def refreshed(study: Study) -> Study:
    """The study with the groups that were appended since it was read; the same object if there are none.

    Raises:
        DataError: new groups are not valid, or old ones were edited.
    """
    path = study.folder / GROUPS
    try:
        if path.stat().st_size == study.size:
            return study
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    placed_groups, size = read_groups(path)
    groups = tuple(placed_groups.values())
    if size == study.size:
        return study
    if groups[: len(study.groups)] != study.groups:
        raise DataError(f"{path} was edited while the study is open; undo that: groups may only be appended")
    _require_valid(study.folder, study.settings, placed_groups, known=study.images, verify=True)
    return replace(study, groups=groups, size=size)


def append_groups(folder: Path, groups: Sequence[Group], images: Mapping[str, Source]) -> tuple[Group, ...]:
    """Adds groups to a study in one write, which is on the disk when this returns.

    Only one process may append at a time; servers may read meanwhile.

    Args:
        folder: of the study.
        groups: new ones; they may name images as in :func:`create_study`.
        images: images that the groups name. Images that the study already has may be named by their ids instead.

    Returns:
        The groups with the ids of their images.

    Raises:
        ConfigError: the folder holds no study.
        DataError: an image is missing or cannot be read, an id is taken, or writing failed.
    """
    study = open_study(folder, verify=False)
    ids = set(study.by_id)
    for group in groups:
        if group.id in ids:
            raise DataError(f"study {folder} has a group {group.id!r} already; give each group its own id")
        ids.add(group.id)
    stored_groups = _with_ids(folder, groups, images, progress=False)
    placed_groups = {f"group {group.id!r}": group for group in stored_groups}
    _require_valid(folder, study.settings, placed_groups, known=study.images, verify=False)
    _append_lines(folder / GROUPS, stored_groups)
    return stored_groups


_LEAST: Mapping[Form, tuple[int, int]] = {"pair": (2, 2), "single": (1, 1), "best-worst": (2, 3)}
"""Fewest candidates by form: of a group, and of one that is an attention check."""


class _CandidateLine(BaseModel, extra="forbid", frozen=True):
    source: str
    images: tuple[Annotated[str, Field(pattern=f"^{ID.pattern}$")], ...] = Field(min_length=1)


class _GroupLine(BaseModel, extra="forbid", frozen=True):
    id: str = Field(min_length=1)
    question: str
    prompt: str
    candidates: tuple[_CandidateLine, ...] = Field(min_length=1)
    category: str = ""
    expected: int | None = Field(default=None, ge=0)


def read_groups(path: Path) -> tuple[dict[str, Group], int]:
    """All groups of a file. An unfinished last line, left by a killed writer, is ignored.

    Returns:
        The groups by their places (file and line), and the number of bytes that were read.

    Raises:
        DataError: the file or a line is not valid; the message names line and key.
    """
    try:
        content = read_bytes(path, text=True)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); is this the folder of a study?") from error
    complete = content[: _complete_size(content)]
    try:
        text = complete.decode("utf-8")
    except UnicodeDecodeError as error:
        line = complete[: error.start].count(b"\n") + 1
        raise DataError(f"{path} line {line} is not UTF-8 text; save the file as UTF-8") from error
    groups: dict[str, Group] = {}
    places: dict[str, str] = {}
    for number, line_text in enumerate(text.split("\n"), start=1):
        if line_text.strip():
            place = f"{path} line {number}"
            group = groups[place] = _group(line_text, place)
            if places.setdefault(group.id, place) != place:
                raise DataError(f"{place}: id {group.id!r} is that of {places[group.id]}; give each group its own id")
    return groups, len(complete)


def _group(line: str, place: str) -> Group:
    try:
        values = _GroupLine.model_validate_json(line, strict=True)
    except ValidationError as error:
        kind = error.errors()[0]["type"]
        if kind == "json_invalid":
            raise DataError(f"{place} is not JSON ({error.errors()[0]['msg']}); fix or remove it") from error
        if kind == "model_type" and not error.errors()[0]["loc"]:
            raise DataError(f"{place} is not an object {{...}}") from error
        _, message = settings_file.first_fault(error, _GroupLine.model_fields)
        raise DataError(f"{place}: {message}") from error
    if values.expected is not None and values.expected >= len(values.candidates):
        raise DataError(f"{place}: expected is {values.expected}; it is the index of a candidate from 0, or absent")
    candidates = tuple(Candidate(source=item.source, images=item.images) for item in values.candidates)
    return Group(**{**dict(values), "candidates": candidates})


def _append_lines(path: Path, groups: Iterable[Group]) -> None:
    """Appends groups in one write, flushed to the disk; cuts off an unfinished last line first.

    Raises:
        DataError: writing failed; the file has its old content.
    """
    block = "".join(f"{_line(group)}\n" for group in groups).encode("utf-8")
    try:
        with path.open("r+b") as file:
            content = file.read()
            size = _complete_size(content)
            if content[:size] and not content[:size].endswith(b"\n"):
                block = b"\n" + block
            try:
                file.truncate(size)
                file.seek(size)
                file.write(block)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                file.truncate(size)
                raise
    except OSError as error:
        raise DataError(f"{path} cannot be appended to ({error.strerror}); free some space or fix it") from error


def _line(group: Group) -> str:
    values = asdict(group)
    if group.expected is None:
        del values["expected"]
    return json.dumps(values, ensure_ascii=False)


def _complete_size(content: bytes) -> int:
    """How many bytes of a file are whole lines; a last line without its end counts if it is a JSON object."""
    end = content.rfind(b"\n") + 1
    try:
        return len(content) if isinstance(parse_json(content[end:]), dict) else end
    except ValueError:
        return end


def _with_ids(
    folder: Path, groups: Sequence[Group], images: Mapping[str, Source], *, progress: bool
) -> tuple[Group, ...]:
    """Copies the images into the folder and puts their ids into the groups."""
    names = _image_names(groups)
    for name in names:
        if name not in images and not ID.fullmatch(name):
            raise DataError(f"a group names the image {name!r}, which is not in images")
    new_names = tqdm([name for name in names if name in images], desc="images", unit="image", disable=not progress)
    ids = {name: add_image(folder, images[name]) for name in new_names}

    def renamed(candidate: Candidate) -> Candidate:
        return replace(candidate, images=tuple(ids.get(name, name) for name in candidate.images))

    return tuple(replace(group, candidates=tuple(map(renamed, group.candidates))) for group in groups)


def _image_names(groups: Iterable[Group]) -> Sequence[str]:
    """Names of all images, each once, in the order of the groups."""
    return list(dict.fromkeys(name for group in groups for member in group.candidates for name in member.images))


def _image_path(folder: Path, name: str) -> Path:
    return folder / "images" / f"{name}.png"


def _require_valid(
    folder: Path, settings: StudySettings, groups: Mapping[str, Group], *, known: frozenset[str], verify: bool
) -> None:
    """Checks groups against the study's questions and images.

    Args:
        folder: of the study.
        settings: of the study.
        groups: by the places that messages name.
        known: images that were checked before.
        verify: compare images with their ids.
    """
    questions = {question.key: question for question in settings.questions}
    seen = set(known)
    for place, group in groups.items():
        if group.question not in questions:
            listed = ", ".join(questions)
            raise DataError(f"{place}: question {group.question!r} is not in {settings_file.NAME}, which has {listed}")
        least = _LEAST[questions[group.question].form][group.expected is not None]
        if len(group.candidates) < least:
            form = f"{questions[group.question].form}{', an attention check' if group.expected is not None else ''}"
            raise DataError(f"{place}: candidates has {len(group.candidates)}; a group ({form}) needs at least {least}")
        sizes = {len(candidate.images) for candidate in group.candidates}
        single = questions[group.question].shows == "image"
        if len(sizes) > 1 or (sizes != {1}) == single:
            expected = "one image" if single else "a reference and as many other images as the others"
            raise DataError(f"{place}: candidates.images: question {group.question!r} shows {expected} of each")
        for name in _image_names([group]):
            if name not in seen:
                seen.add(name)
                _require_image(_image_path(folder, name), name, place, verify=verify)


def _require_models(folder: Path, settings: StudySettings, groups: Iterable[Group]) -> None:
    """Checks that contrasts are between models of the study."""
    models = {member.source for group in groups if group.expected is None for member in group.candidates}
    for contrast in settings.contrasts:
        for name in contrast:
            if models and name not in models:
                raise ConfigError(
                    f"{folder / settings_file.NAME}: contrasts names the model {name!r}; this study has "
                    f"{', '.join(sorted(models))}"
                )


def _require_image(path: Path, name: str, place: str, *, verify: bool) -> None:
    if path.is_symlink():
        raise DataError(f"{path} is a link, which could show any file to raters; put the image itself there")
    if not path.is_file():
        raise DataError(f"{place}: image {name} is missing; put {path} back")
    try:
        intact = not verify or image_id(read_bytes(path)) == name
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    if not intact:
        raise DataError(f"{path} differs from the image that was put into the study; put the original back")
