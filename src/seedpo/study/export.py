"""From votes to labelled pairs for training, and to Label Studio.

What becomes of each answer: a choice is a preference, a tie a tie; "both bad" and "skip" say nothing of which image is
better and are left out, as are attention checks, repetitions, excluded raters, and questions about sets of images. Each
rater's answer is a row of its own. The first image is the first candidate of its group, whatever side it was shown on.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from seedpo.errors import ConfigError, DataError
from seedpo.files import write_aside
from seedpo.study.folder import Study
from seedpo.study.records import Judgement

LABELS = {"first": (1.0, 0.0), "second": (0.0, 1.0), "tie": (0.5, 0.5)}
"""Pick-a-Pic's labels of the answers that are exported."""

_AT_ONCE = 64
"""Pairs in memory at a time, and in a row group of a parquet file."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The answers that are exported.

    Attributes:
        kept: in the order of the votes.
        left_out: how many were left out, by reason.
    """

    kept: Sequence[Judgement]
    left_out: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written.

    Attributes:
        path: the file.
        rows: pairs in it.
        left_out: how many answers were left out, by reason.
    """

    path: Path
    rows: int
    left_out: Mapping[str, int]


def select(study: Study, judgements: Iterable[Judgement], *, question: str) -> Selection:
    """Chooses what is exported.

    Args:
        study: of the answers.
        judgements: without those of excluded raters.
        question: key of the question that is exported.
    """
    kept, left_out = [], Counter[str]()
    for judgement in judgements:
        reason = _reason(judgement, question)
        if reason:
            left_out[reason] += 1
        else:
            kept.append(judgement)
    return Selection(kept=kept, left_out=left_out)


def _reason(judgement: Judgement, question: str) -> str | None:
    if judgement.question != question:
        return "other questions"
    if judgement.expected is not None:
        return "attention checks"
    if judgement.show.repeat_of is not None:
        return "repetitions"
    return None if judgement.answer in LABELS else f'"{judgement.answer}"'


def default_question(study: Study) -> str:
    """The first question that shows one image on each side.

    Raises:
        ConfigError: there is none.
    """
    for question in study.settings.questions:
        if question.shows == "image":
            return question.key
    raise ConfigError(f"study {study.folder} asks about sets of images only; there are no pairs to export")


def export_votes(
    study: Study,
    judgements: Iterable[Judgement],
    out: Path,
    *,
    format: str,
    question: str | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> Exported:
    """Writes the votes of a study for other programs.

    Args:
        study: of the votes.
        judgements: without those of excluded raters.
        out: file to write. Formats whose images lie beside them put these into the folder ``<name of out>-images``.
        format: ``pickapic`` (parquet, images inside), ``jsonl`` or ``label-studio`` (JSON).
        question: key of the question; none: the first one that shows one image on each side.
        overwrite: whether a file that is there is replaced.
        progress: whether a bar is shown.

    Raises:
        ConfigError: an argument is wrong, or the file is there.
        DataError: there is nothing to export, an image cannot be read, or the file cannot be written.
    """
    if format not in WRITERS:
        raise ConfigError(f"--format {format} is none of {', '.join(WRITERS)}")
    if out.resolve().parent == study.folder.resolve() or (study.folder.resolve() / "images") in out.resolve().parents:
        raise ConfigError(f"--out {out} lies in the study's own folder; name a file elsewhere")
    if out.is_dir() or (out.exists() and not overwrite):
        raise ConfigError(f"--out {out} is there already; choose another name, or add --overwrite")
    key = default_question(study) if question is None else study.question(question).key
    if study.question(key).shows != "image":
        raise ConfigError(f"question {key!r} shows sets of images; only pairs of single images can be exported")
    chosen = select(study, judgements, question=key)
    if not chosen.kept:
        reasons = ", ".join(f"{count} {reason}" for reason, count in chosen.left_out.items()) or "none at all"
        raise DataError(f"study {study.folder} has no answer to {key!r} to export; left out: {reasons}")
    rows = tqdm(chosen.kept, desc="export", unit="pair", disable=None if progress else True)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with write_aside(out, unique=True) as aside:
            WRITERS[format](study, rows, aside, out)
    except OSError as error:
        raise DataError(f"{out} cannot be written ({error}); free some space or choose another place") from error
    return Exported(path=out, rows=len(chosen.kept), left_out=chosen.left_out)


def images_folder(out: Path) -> Path:
    """Where the images of an export lie that does not hold them itself."""
    return out.with_name(f"{out.stem}-images")


def _write_pickapic(study: Study, rows: Iterable[Judgement], aside: Path, out: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = ("caption", "image_0_uid", "image_1_uid", "model_0", "model_1", "user_id", "question", "category")
    columns = [
        *((name, pa.string()) for name in text),
        *((name, pa.binary()) for name in ("jpg_0", "jpg_1")),
        *((name, pa.float64()) for name in ("label_0", "label_1")),
        ("has_label", pa.bool_()),
        ("created_at", pa.string()),
    ]
    schema = pa.schema(columns)
    with pq.ParquetWriter(aside, schema) as writer:
        for batch in _batches(rows):
            writer.write_table(pa.Table.from_pylist([_pickapic_row(study, one) for one in batch], schema=schema))


def _pickapic_row(study: Study, judgement: Judgement) -> dict[str, Any]:
    first, second = judgement.first.images[0], judgement.second.images[0]
    label_0, label_1 = LABELS[judgement.answer]
    return {
        "caption": judgement.prompt,
        "jpg_0": study.image(first).read_bytes(),
        "jpg_1": study.image(second).read_bytes(),
        "label_0": label_0,
        "label_1": label_1,
        "has_label": True,
        "image_0_uid": first,
        "image_1_uid": second,
        "model_0": judgement.first.source,
        "model_1": judgement.second.source,
        "user_id": judgement.show.rater,
        "question": judgement.question,
        "category": judgement.category,
        "created_at": judgement.at,
    }


def _batches(rows: Iterable[Judgement]) -> Iterable[list[Judgement]]:
    batch: list[Judgement] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def _write_jsonl(study: Study, rows: Iterable[Judgement], aside: Path, out: Path) -> None:
    with aside.open("w", encoding="utf-8") as file:
        for judgement in rows:
            file.write(json.dumps(_jsonl_row(study, judgement, images_folder(out)), ensure_ascii=False) + "\n")


def _jsonl_row(study: Study, judgement: Judgement, folder: Path) -> dict[str, Any]:
    pair = (judgement.first, judgement.second)
    chosen, rejected = pair if judgement.answer != "second" else pair[::-1]
    return {
        "prompt": judgement.prompt,
        "chosen": _copied(study, chosen.images[0], folder),
        "rejected": _copied(study, rejected.images[0], folder),
        "chosen_probability": 0.5 if judgement.answer == "tie" else 1.0,
        "chosen_model": chosen.source,
        "rejected_model": rejected.source,
        "rater": judgement.show.rater,
        "question": judgement.question,
        "category": judgement.category,
        "at": judgement.at,
    }


def _write_label_studio(study: Study, rows: Iterable[Judgement], aside: Path, out: Path) -> None:
    """One task for each pair, one annotation for each answer.

    For a project with ``<Image name="first" value="$first"/>``, ``<Image name="second" value="$second"/>`` and
    ``<Choices name="preference" toName="first">`` with the choices first, second and tie; its local storage has to
    serve the folder that the file lies in.
    """
    tasks: dict[tuple[str, int, int], dict[str, Any]] = {}
    for judgement in rows:
        show = judgement.show
        key = (show.group, show.first, show.second)
        if key not in tasks:
            tasks[key] = {"data": _label_studio_data(study, judgement, images_folder(out)), "annotations": []}
        choice = {"from_name": "preference", "to_name": "first", "type": "choices"}
        annotation: dict[str, Any] = {
            "result": [{**choice, "value": {"choices": [judgement.answer]}}],
            "was_cancelled": False,
            "ground_truth": False,
            "created_at": judgement.at,
            "lead_time": judgement.seconds,
        }
        tasks[key]["annotations"].append(annotation)
    aside.write_text(json.dumps(list(tasks.values()), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _label_studio_data(study: Study, judgement: Judgement, folder: Path) -> dict[str, str]:
    pair = {"first": judgement.first, "second": judgement.second}
    served = {
        side: f"/data/local-files/?d={_copied(study, candidate.images[0], folder)}" for side, candidate in pair.items()
    }
    models = {f"{side}_model": candidate.source for side, candidate in pair.items()}
    about = {"prompt": judgement.prompt, "question": judgement.question, "category": judgement.category}
    return {**about, **served, **models, "group": judgement.show.group}


def _copied(study: Study, name: str, folder: Path) -> str:
    """Puts an image beside the export; its path as seen from there."""
    folder.mkdir(exist_ok=True)
    place = folder / f"{name}.png"
    if not place.exists():
        with write_aside(place, unique=True, durable=False) as aside:
            shutil.copyfile(study.image(name), aside)
    return f"{folder.name}/{place.name}"


Writer = Callable[[Study, Iterable[Judgement], Path, Path], None]

WRITERS: Mapping[str, Writer] = {
    "pickapic": _write_pickapic,
    "jsonl": _write_jsonl,
    "label-studio": _write_label_studio,
}
"""Formats by their names."""
