"""Synthetic sets of labelled pairs, of any number of rows, as Pick-a-Pic and WebDataset lay them out."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from tqdm import tqdm

FILES = 16
"""Files that a set is divided among."""

GROUP = 100
"""Rows of a row group, as the package ``datasets`` writes tables of images."""

DRAWN = 64
"""Different images; they come again and again."""

TEXT_ROWS = 50_000
"""Most rows of the set of paths: nobody keeps more images as single files."""

WORDS = (
    "a photo of", "an oil painting of", "a watercolour of", "a red", "a blue", "a small", "an old", "fox", "castle",
    "lighthouse", "robot", "garden", "portrait", "at dawn", "in the rain", "under the stars", "highly detailed",
)  # fmt: skip


def drawn_images(pixels: int) -> list[bytes]:
    """JPEG files of smooth noise.

    Args:
        pixels: height and width.
    """
    generator = np.random.default_rng(0)
    files = []
    for _ in range(DRAWN):
        coarse = generator.integers(0, 256, (max(2, pixels // 16), max(2, pixels // 16), 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(coarse).resize((pixels, pixels), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    return files


def prompt(row: int) -> str:
    """One of about as many prompts as Pick-a-Pic has for its rows: a prompt for 14 pairs, in succession."""
    number = row // 14
    words = [WORDS[(number // 7**place + place) % len(WORDS)] for place in range(7)]
    return f"{' '.join(words)}, number {number}"


def _rows(first: int, last: int, images: Sequence[bytes]) -> dict[str, list[Any]]:
    """Some rows in Pick-a-Pic's columns; one in ten is a tie."""
    rows = range(first, last)
    labels = [0.5 if row % 10 == 3 else float(row % 2) for row in rows]
    return {
        "are_different": [True for _ in rows],
        "caption": [prompt(row) for row in rows],
        "has_label": [True for _ in rows],
        "image_0_uid": [f"{2 * row:036d}" for row in rows],
        "image_1_uid": [f"{2 * row + 1:036d}" for row in rows],
        "jpg_0": [images[2 * row % DRAWN] for row in rows],
        "jpg_1": [images[(2 * row + 1) % DRAWN] for row in rows],
        "label_0": labels,
        "label_1": [1.0 - label for label in labels],
        "ranking_id": list(rows),
    }


def write_parquet(folder: Path, rows: int, *, pixels: int) -> Path:
    """Parquet files in Pick-a-Pic's columns, in row groups of :data:`GROUP`."""
    images = drawn_images(pixels)
    folder.mkdir(parents=True)
    for number, (first, last) in enumerate(_parts(rows)):
        writer = None
        for start in range(first, last, 20 * GROUP):
            table = pa.table(_rows(start, min(start + 20 * GROUP, last), images))
            # Images that differ are stored neither once for several rows nor smaller than they are.
            writer = writer or pq.ParquetWriter(
                folder / f"train-{number:05d}-of-{FILES:05d}.parquet",
                table.schema,
                use_dictionary=["caption"],
                compression={name: "NONE" if name.startswith("jpg") else "SNAPPY" for name in table.column_names},
            )
            writer.write_table(table, row_group_size=GROUP)
        if writer is not None:
            writer.close()
    return folder


def write_tars(folder: Path, rows: int, *, pixels: int) -> Path:
    """Tar archives of KEY.chosen.jpg, KEY.rejected.jpg and KEY.json."""
    images = drawn_images(pixels)
    folder.mkdir(parents=True)
    for number, (first, last) in enumerate(_parts(rows)):
        with tarfile.open(folder / f"{number:05d}.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
            for row in range(first, last):
                label = 0.5 if row % 10 == 3 else 1.0
                text = json.dumps({"prompt": prompt(row), "chosen_probability": label}).encode()
                for ending, content in (
                    ("chosen.jpg", images[2 * row % DRAWN]),
                    ("rejected.jpg", images[(2 * row + 1) % DRAWN]),
                    ("json", text),
                ):
                    member = tarfile.TarInfo(f"{row:09d}.{ending}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
    return folder


def write_jsonl(folder: Path, rows: int, *, pixels: int) -> Path:
    """JSON lines that name image files, at most :data:`TEXT_ROWS` of them."""
    (folder / "images").mkdir(parents=True)
    for number, content in enumerate(drawn_images(pixels)):
        (folder / "images" / f"{number:02d}.jpg").write_bytes(content)
    with (folder / "train.jsonl").open("w", encoding="utf-8") as file:
        for row in range(min(rows, TEXT_ROWS)):
            first, second = (f"images/{(2 * row + side) % DRAWN:02d}.jpg" for side in (0, 1))
            values = {"prompt": prompt(row), "chosen": first, "rejected": second}
            file.write(json.dumps(values | {"chosen_probability": 0.5 if row % 10 == 3 else 1.0}) + "\n")
    return folder


WRITERS = {"parquet": write_parquet, "tars": write_tars, "jsonl": write_jsonl}
"""Sets by the name of what they are stored in."""


def _parts(rows: int) -> Iterator[tuple[int, int]]:
    """First row of each file, and the one after its last."""
    ends = [rows * number // FILES for number in range(FILES + 1)]
    yield from zip(tqdm(ends[:-1], desc="files written", leave=False), ends[1:], strict=True)
