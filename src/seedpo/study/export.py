"""Votes for other programs: labelled pairs for training, tasks of Label Studio, a table for a spreadsheet.

Of the pairs, a choice becomes a preference and a tie a tie. "Both bad" and "skip" do not say which image is better and
are left out, as are attention checks, repetitions, excluded raters, and questions about sets of images. Each rater's
answer is a row of its own. The first image is the first candidate of its group, whichever side it was shown on.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from seedpo.data.text import spreadsheet_text
from seedpo.errors import ConfigError, DataError
from seedpo.files import write_aside
from seedpo.study.folder import Study
from seedpo.study.records import Judgement, Unit

LABELS = {"first": (1.0, 0.0), "second": (0.0, 1.0), "tie": (0.5, 0.5)}
"""Pick-a-Pic's labels of the answers that are exported."""

_BATCH = 64
"""Pairs in memory at a time, and in a row group of a parquet file."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written.

    Attributes:
        path: the file.
        rows: pairs in it.
        left_out: number of answers that were left out, by reason.
    """

    path: Path
    rows: int
    left_out: Mapping[str, int]


def select(judgements: Iterable[Judgement], *, question: str) -> tuple[list[Judgement], Mapping[str, int]]:
    """Chooses what is exported.

    Args:
        judgements: without those of excluded raters.
        question: key of the question that is exported.

    Returns:
        The exported judgements, and the number of the others by reason.
    """
    selected, left_out = [], Counter[str]()
    for judgement in judgements:
        reason = _reason(judgement, question)
        if reason:
            left_out[reason] += 1
        else:
            selected.append(judgement)
    return selected, left_out


def _reason(judgement: Judgement, question: str) -> str | None:
    if judgement.question != question:
        return "other questions"
    if judgement.expected is not None:
        return "attention checks"
    if judgement.show.repeat_of is not None:
        return "repetitions"
    return None if judgement.answer in LABELS else f'"{judgement.answer}"'


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
    """Writes the votes of a study.

    Args:
        study: of the votes.
        judgements: without those of excluded raters.
        out: file to write. Formats with images beside the file put them into the folder ``<name of out>-images``.
        format: ``pickapic`` (parquet with the images), ``jsonl`` or ``label-studio`` (JSON).
        question: key of the question; `None`: the first one that shows one image on each side.
        overwrite: replace an existing file.
        progress: show a bar.

    Raises:
        ConfigError: an argument is wrong, or the file exists.
        DataError: there is nothing to export, an image cannot be read, or the file cannot be written.
    """
    if format not in WRITERS:
        raise ConfigError(f"--format {format}: known are {', '.join(WRITERS)}")
    if out.resolve().parent == study.folder.resolve() or (study.folder.resolve() / "images") in out.resolve().parents:
        raise ConfigError(f"--out {out} is in the study's own folder; name a file elsewhere")
    if out.is_dir() or (out.exists() and not overwrite):
        raise ConfigError(f"--out {out} exists; choose another name, or add --overwrite")
    key = _question(study, question)
    selected, left_out = select(judgements, question=key)
    if not selected:
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items()) or "none at all"
        raise DataError(f"study {study.folder} has no answer to {key!r} to export; left out: {reasons}")
    rows = tqdm(selected, desc="export", unit="pair", disable=None if progress else True)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with write_aside(out, unique=True) as aside:
            WRITERS[format](study, rows, aside, out.with_name(f"{out.stem}-images"))
    except OSError as error:
        raise DataError(f"{out} cannot be written ({error}); free some space or choose another place") from error
    return Exported(path=out, rows=len(selected), left_out=left_out)


def _question(study: Study, key: str | None) -> str:
    if key is None:
        key = next((question.key for question in study.settings.questions if question.shows == "image"), None)
        if key is None:
            raise ConfigError(f"study {study.folder} asks only about sets of images; it has no pairs to export")
    elif study.question(key).shows != "image":
        raise ConfigError(f"question {key!r} shows sets of images; only pairs of single images can be exported")
    return key


def _write_pickapic(study: Study, rows: Iterable[Judgement], aside: Path, images: Path) -> None:
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
    remaining = iter(rows)
    with pq.ParquetWriter(aside, schema) as writer:
        while batch := [_pickapic_row(study, judgement) for judgement in islice(remaining, _BATCH)]:
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))


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


def _write_jsonl(study: Study, rows: Iterable[Judgement], aside: Path, images: Path) -> None:
    with aside.open("w", encoding="utf-8") as file:
        for judgement in rows:
            file.write(json.dumps(_jsonl_row(study, judgement, images), ensure_ascii=False) + "\n")


def _jsonl_row(study: Study, judgement: Judgement, images: Path) -> dict[str, Any]:
    pair = (judgement.first, judgement.second)
    chosen, rejected = pair if judgement.answer != "second" else pair[::-1]
    return {
        "prompt": judgement.prompt,
        "chosen": _copied(study, chosen.images[0], images),
        "rejected": _copied(study, rejected.images[0], images),
        "chosen_probability": 0.5 if judgement.answer == "tie" else 1.0,
        "chosen_model": chosen.source,
        "rejected_model": rejected.source,
        "rater": judgement.show.rater,
        "question": judgement.question,
        "category": judgement.category,
        "at": judgement.at,
    }


def _write_label_studio(study: Study, rows: Iterable[Judgement], aside: Path, images: Path) -> None:
    """One task per pair, one annotation per answer.

    For a project with ``<Image name="first" value="$first"/>``, ``<Image name="second" value="$second"/>`` and
    ``<Choices name="preference" toName="first">`` with the choices first, second and tie. Its local storage has to
    serve the folder of the file.
    """
    tasks: dict[Unit, dict[str, Any]] = {}
    for judgement in rows:
        if judgement.show.unit not in tasks:
            tasks[judgement.show.unit] = {"data": _label_studio_data(study, judgement, images), "annotations": []}
        choice = {"from_name": "preference", "to_name": "first", "type": "choices"}
        annotation = {
            "result": [{**choice, "value": {"choices": [judgement.answer]}}],
            "was_cancelled": False,
            "ground_truth": False,
            "created_at": judgement.at,
            "lead_time": judgement.seconds,
        }
        tasks[judgement.show.unit]["annotations"].append(annotation)
    aside.write_text(json.dumps(list(tasks.values()), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _label_studio_data(study: Study, judgement: Judgement, images: Path) -> dict[str, str]:
    pair = {"first": judgement.first, "second": judgement.second}
    return {
        "prompt": judgement.prompt,
        "question": judgement.question,
        "category": judgement.category,
        **{
            side: f"/data/local-files/?d={_copied(study, candidate.images[0], images)}"
            for side, candidate in pair.items()
        },
        **{f"{side}_model": candidate.source for side, candidate in pair.items()},
        "group": judgement.show.group,
    }


def _copied(study: Study, name: str, images: Path) -> str:
    """Copies an image to the folder beside the export; gives its path relative to the file."""
    images.mkdir(exist_ok=True)
    place = images / f"{name}.png"
    if not place.exists():
        with write_aside(place, unique=True, durable=False) as aside:
            shutil.copyfile(study.image(name), aside)
    return f"{images.name}/{place.name}"


Writer = Callable[[Study, Iterable[Judgement], Path, Path], None]

WRITERS: Mapping[str, Writer] = {
    "pickapic": _write_pickapic,
    "jsonl": _write_jsonl,
    "label-studio": _write_label_studio,
}
"""Formats by name. A writer gets the study, the judgements, the file and the folder for images."""


COLUMNS = (
    *("at", "rater", "number", "question", "category", "prompt", "group", "first", "second"),
    *("first_images", "second_images", "on_the_left", "answer", "expected", "repeated", "seconds"),
)


def votes_csv(judgements: Sequence[Judgement]) -> str:
    """All counted answers as CSV, checks and repetitions included.

    ``first`` and ``second`` are the sources of the candidates; ``answer`` and ``on_the_left`` say which of the two.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    writer.writerows([spreadsheet_text(cell) for cell in _csv_row(judgement)] for judgement in judgements)
    return text.getvalue()


def _csv_row(judgement: Judgement) -> tuple[str, ...]:
    show = judgement.show
    return (
        *(judgement.at, show.rater, str(show.number), judgement.question, judgement.category, judgement.prompt),
        *(show.group, judgement.first.source, judgement.second.source),
        *(" ".join(judgement.first.images), " ".join(judgement.second.images)),
        *("second" if show.flipped else "first", judgement.answer, judgement.expected or ""),
        "yes" if show.repeat_of else "",
        "" if judgement.seconds is None else f"{judgement.seconds:.3f}",
    )
