"""From a table's rows to labelled pairs: what is left out, which image is preferred, and how both become one size."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL.Image import Image
from tqdm import tqdm

from seedpo.data.files.inventory import Inventory
from seedpo.data.images.buckets import Size, bucket_sizes, nearest_bucket, stored_size
from seedpo.data.images.image_roots import TRIED, image_root, likely_roots
from seedpo.data.images.reading import fit, read_file, read_image
from seedpo.data.layouts.columns import column_root, value_at
from seedpo.data.layouts.prompts import prompt_text
from seedpo.data.pairs.fingerprints import image_names, rows_fingerprint
from seedpo.data.pairs.pair_index import Fate, column_values, index_pairs, wrong_marks
from seedpo.data.settings import PairsConfig
from seedpo.data.tables.blocks import BlockedRows, Blocks
from seedpo.data.tables.rows import ArrowRows, Table
from seedpo.data.text import value_fault
from seedpo.errors import DataError
from seedpo.protocols import Fingerprint, LabelledPair

VERSION = 1
"""Of how files become pixels; part of the content hashes, so that a change makes caches void."""

_CROPS = 0x5EED
"""Seed of the windows of random crops, beside the number of the row."""


@dataclass(frozen=True, kw_only=True)
class StoredImage:
    """An image as it is stored.

    Attributes:
        content: its bytes or its path, as the table has it.
        name: its column, and its place if that holds a list, for messages.
        folder: where paths begin and within which they must lie; `None`: there can be no paths.
    """

    content: Any
    name: str
    folder: Path | None


@dataclass(frozen=True, kw_only=True)
class StoredPair:
    """A pair as it is stored, or a like, which has one image.

    Attributes:
        text: the cell of its prompt, and the name of the column.
        images: the two images, or the one.
        probability: that the first image is preferred; 0.5 for a tie; of a like 1 or 0.
        place: file and row, for messages.
        key: number that seeds the window of a random crop.
        bucket: height and width that both images are brought to; ``None``: the square of the resolution.
    """

    text: tuple[Any, str]
    images: tuple[StoredImage, ...]
    probability: float
    place: str
    key: int
    bucket: Size | None = None

    @property
    def prompt(self) -> str:
        """What both images were made for.

        Raises:
            DataError: if it is not text.
        """
        return checked_prompt(*self.text, self.place)


def checked_prompt(prompt: object, name: str, place: str) -> str:
    """The prompt of a row, of text or of a conversation of one message.

    Raises:
        DataError: if it is neither, or text that no tokenizer takes.
    """
    text = prompt_text(prompt)
    if text is None:
        kind = "missing" if prompt is None else f"not text but {type(prompt).__name__}"
        raise DataError(f"{place}: {name} is {kind}; fix or remove the row")
    if fault := value_fault(text):
        raise DataError(f"{place}: {name} {fault}; fix or remove the row")
    return text


@dataclass(frozen=True, kw_only=True)
class OpenedPair:
    """A pair as it is stored, decoded, in the order of preference; or a like.

    Attributes:
        prompt: what the images were made for.
        images: the preferred image and the other one; of a like its one.
        probability: that the first is preferred; 0.5 for a tie; of a like 1 or 0.
        place: file and row.
        key: number that seeds the window of a random crop.
        bucket: height and width that both images are brought to; ``None``: the square of the resolution.
    """

    prompt: str
    images: tuple[Image, ...]
    probability: float
    place: str
    key: int
    bucket: Size | None = None


def open_pair(pair: StoredPair) -> OpenedPair:
    """Decodes a pair or a like.

    Raises:
        DataError: if the prompt is not text or an image cannot be read.
    """
    prompt, images = pair.prompt, []
    for image in pair.images:
        try:
            images.append(read_image(image.content, folder=image.folder))
        except DataError as error:
            raise DataError(f"{pair.place}: {image.name} is {error}; remove the row") from error
    is_swapped = len(images) > 1 and pair.probability < 0.5
    return OpenedPair(
        prompt=prompt,
        images=tuple(reversed(images) if is_swapped else images),
        probability=1.0 - pair.probability if is_swapped else pair.probability,
        place=pair.place,
        key=pair.key,
        bucket=pair.bucket,
    )


def content_hash(pair: StoredPair, config: PairsConfig) -> str:
    """SHA-256 of all that the labelled pair depends on, in hexadecimal digits; nothing is decoded.

    Raises:
        DataError: if the prompt is not text or a file cannot be read.
    """
    window = _window(pair, config)
    size = config.resolution if pair.bucket is None else pair.bucket
    hasher = hashlib.sha256(f"{VERSION} {pair.probability!r} {size} {window}".encode())
    for part in (pair.prompt.encode(), *(_file(pair, image) for image in pair.images)):
        hasher.update(len(part).to_bytes(8, "big"))
        hasher.update(part)
    return hasher.hexdigest()


def _file(pair: StoredPair, image: StoredImage) -> bytes:
    try:
        return read_file(image.content, folder=image.folder)
    except DataError as error:
        raise DataError(f"{pair.place}: {image.name} is {error}; remove the row") from error


def stored_image(content: Any, name: str, item: int, folder: Path | None) -> StoredImage:
    """An image of a cell.

    Args:
        content: the cell.
        name: its column.
        item: place of the image in the list that the cell holds; -1 if it holds one image.
        folder: where paths begin.
    """
    if item < 0:
        return StoredImage(content=content, name=name, folder=folder)
    is_there = isinstance(content, list | tuple) and item < len(content)
    return StoredImage(content=content[item] if is_there else None, name=f"{name}[{item}]", folder=folder)


def fitted(
    pair: OpenedPair, config: PairsConfig, *, size: tuple[int, int] | None = None
) -> tuple[tuple[Image, ...], tuple[int, int]]:
    """The images of a pair in the size that is trained on, and the rows and columns cut away of the first.

    Args:
        pair: the images as they are stored.
        config: resolution and crop.
        size: width and height that images must have where none is configured; `None`: each other's.

    Raises:
        DataError: if no resolution is configured and the sizes differ.
    """
    if config.resolution is None:
        check_size(pair, size)
        return pair.images, (0, 0)
    window = _window(pair, config)
    wanted = pair.bucket or (config.resolution, config.resolution)
    images, cuts = zip(*(fit(image, wanted, window) for image in pair.images), strict=True)
    return images, cuts[0]


def labelled(pair: OpenedPair, config: PairsConfig, *, size: tuple[int, int] | None = None) -> LabelledPair:
    """A decoded pair in the size that is trained on, as tensors; see :func:`fitted`."""
    from seedpo.data.images.pixels import to_tensor  # imports torch, which a look at the data does not need

    fitting, cut = fitted(pair, config, size=size)
    images = [to_tensor(image) for image in fitting]
    return LabelledPair(
        prompt=pair.prompt,
        chosen=images[0],
        rejected=images[1] if len(images) > 1 else None,
        chosen_probability=pair.probability,
        original_size=(pair.images[0].height, pair.images[0].width),
        crop=cut,
    )


def check_size(pair: OpenedPair, size: tuple[int, int] | None) -> None:
    """Checks that the images of a pair have one size, that of the set.

    Raises:
        DataError: naming the sizes.
    """
    first, *others = pair.images
    wanted = [*((image, first.size, "other") for image in others), (first, size, "first pair")]
    for image, expected, whose in wanted:
        if expected is not None and image.size != expected:
            raise DataError(
                f"{pair.place}: an image has {_size(image.size)} pixels and the {whose} {_size(expected)}; "
                "bring all to one size, for example with --set pairs.resolution=512"
            )


def one_kind_of_likes(origin: str, liked: int, others: int) -> str:
    """Why a run cannot learn from likes of one kind alone."""
    kind = f"{liked} liked images and none that is not" if liked else f"{others} images that are not liked and no other"
    return f"{origin} holds {kind}: what is liked shows only beside what is not; add the other kind"


def image_folder(config: PairsConfig, folder: Path | None) -> Path | None:
    """Where paths of images begin: as configured, else where the data lie."""
    return folder if config.image_folder is None else Path(config.image_folder)


def _text_or_none(prompt: object) -> str | None:
    try:
        return checked_prompt(prompt, "", "")
    except DataError:
        return None


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _window(pair: StoredPair | OpenedPair, config: PairsConfig) -> tuple[float, float]:
    """Where the square that is kept of both images lies, down and across, 0 to 1."""
    if config.crop == "center" or config.resolution is None:
        return 0.5, 0.5
    down, across = np.random.default_rng([_CROPS, pair.key]).random(2)
    return float(down), float(across)


class PairSet:
    """The labelled pairs of a table; images are read on demand.

    Args:
        table: where they are stored.
        config: which are left out and how they become one size.
        inventory: of the files that the table was read from; `None`: there are none.

    Raises:
        DataError: if a column is missing, or no pair is left.
    """

    sequential = False

    @classmethod
    def of_table(cls, table: pa.Table, *, origin: str, config: PairsConfig | None = None) -> PairSet:
        """The pairs of a table in memory, which is called ``origin`` in messages."""
        return cls(ArrowRows(table, origin=origin), config)

    def __init__(self, table: Table, config: PairsConfig | None = None, inventory: Inventory | None = None) -> None:
        self.table = table
        self.config = config or PairsConfig()
        self.origin = table.origin
        self.index = index_pairs(table, self.config)
        """Where the images of each pair lie, and what became of each row."""
        self.layout = self.index.reading
        self.unlabelled = self.index.left_out().get("unlabelled", 0)
        """Rows that nobody judged; they are left out."""
        self.alone = self.index.left_out().get("alone", 0)
        """Rows of single images that no other image of their prompt can be compared with; they are left out."""
        self.tied = self.index.tied
        """Pairs in which neither image is preferred."""
        used, left_out = self.index.row_counts()
        self.inventory = (inventory or Inventory(origin=self.origin)).with_rows(
            len(table), used=used, left_out=left_out
        )
        """What was found, used and left out."""
        self._buckets: list[Size] | None = None
        self._root: Path | None = None
        self._root = self._image_root()
        if self._root is not None:
            note = f"paths of images begin in {self._root}"
            self.inventory = replace(self.inventory, notes=(*self.inventory.notes, note))
        self._size: tuple[int, int] | None = None
        if self.config.buckets:
            self._buckets = self._bucketed()

    @property
    def summary(self) -> str:
        """How many pairs there are and what is left out, for the log."""
        if self.config.reads_likes:
            liked, others = self.liked()
            notes = [f"{len(self)} likes: {liked} liked, {others} not"]
            notes += [f"{self.ties} of ties alone left out"] if self.ties else []
        else:
            notes = [f"{len(self)} pairs", f"{self.ties} ties left out"]
        notes += [f"{self.unlabelled} without a label left out"] if self.unlabelled else []
        notes += [f"{self.alone} without a partner left out"] if self.alone else []
        notes += [f"{self.tied} ties among them"] if self.tied > self.ties else []
        faulty = self.index.row_counts()[1]["faulty"]
        notes += [f"{faulty} faulty among them"] if faulty else []
        notes += [f"in {len(set(self._buckets))} buckets"] if self._buckets else []
        return ", ".join(notes)

    def liked(self) -> tuple[int, int]:
        """How many images are liked, and how many are not; of pairs, in how many each side is preferred."""
        is_sound = ~self.index.faulty()[self.index.rows[:, 0]]
        first = self.index.probability > 0.5
        return int((first & is_sound).sum()), int((~first & is_sound).sum())

    @property
    def ties(self) -> int:
        """Ties that are left out."""
        return self.tied if self.config.ties == "drop" else 0

    def __len__(self) -> int:
        return len(self.index)

    def fates(self) -> Iterator[Fate]:
        """What became of each row of the table, in their order."""
        return self.index.fates()

    def fingerprint(self) -> Fingerprint:
        """Number of the pairs, and digests of their prompts, labels and images; see :mod:`.fingerprints`.

        Images that lie within the table's own files are told by the sizes of those files.
        """
        prompt_cells = column_values(self.table, self.layout.prompt)
        texts = [prompt_cells[row] for row in self.index.rows[:, 0].tolist()]
        labels = self.index.probability.tolist()
        columns = self.layout.images
        if not all(self.table.is_light(column_root(name, self.table.columns) or name) for name in columns):
            sizes = self.table.file_sizes()
            facts = rows_fingerprint({"prompts": texts, "labels": labels})
            return facts | ({"files": len(sizes), "bytes": sum(sizes)} if sizes else {})
        cells = [column_values(self.table, name) for name in columns]
        names = list(zip(*(self._names(cells, place) for place in range(self.index.rows.shape[1])), strict=True))
        # The label is that of the image whose name comes first, so that a swap changes labels and no images.
        own_columns = {
            "prompts": texts,
            "labels": [p if own[0] == min(own) else 1.0 - p for own, p in zip(names, labels, strict=True)],
            "images": [sorted(own) for own in names],
        }
        return rows_fingerprint(own_columns)

    def _names(self, cells: Sequence[Sequence[Any]], place: int) -> list[str]:
        """What identifies one image of each pair, the first or the second, from the cells of both columns."""
        rows, items, sides = (
            values[:, place].tolist() for values in (self.index.rows, self.index.items, self.index.sides)
        )
        paths = [
            stored_image(cells[side][row], "", item, None).content
            for row, item, side in zip(rows, items, sides, strict=True)
        ]
        return image_names(paths, self._folders(rows))

    def one_pass(self) -> Iterable[int]:
        """Numbers of all pairs."""
        return range(len(self))

    def __getitem__(self, index: int) -> LabelledPair:
        """One pair.

        Raises:
            DataError: if it cannot be read; the message names file, row and column.
        """
        pair = self.open(index)
        return labelled(pair, self.config, size=self.size() if self.config.resolution is None else None)

    def content(self, index: int) -> str:
        """SHA-256 of all that a pair depends on, in hexadecimal digits, without decoding its images."""
        return content_hash(self.stored(index), self.config)

    def prompt(self, index: int) -> str:
        """What both images of a pair were made for, without reading them.

        Raises:
            DataError: if it is not text.
        """
        row, name = self._row(index), self.layout.prompt
        return checked_prompt(self._values(row, [name])[name], name, self.table.place(row))

    def all_prompts(self) -> Iterator[str | None]:
        """The prompt of each pair; ``None`` where :meth:`prompt` raises an error."""
        cells = column_values(self.table, self.layout.prompt)
        wrong = set(np.flatnonzero(self.index.faulty()).tolist())
        for row in self.index.rows[:, 0].tolist():
            cell = cells[row]
            yield cell if isinstance(cell, str) and row not in wrong else None

    def _row(self, index: int) -> int:
        """Row of the first image of a pair.

        Raises:
            DataError: if its marks are wrong.
        """
        row = int(self.index.rows[index, 0])
        if self.index.fault(row):
            wrong = wrong_marks(self.index, self.table, row)
            raise DataError(f"{self.table.place(row)}: {wrong}; fix or remove the row")
        return row

    def _folders(self, rows: Sequence[int]) -> list[Path | None]:
        return [image_folder(self.config, self._root or self.table.folder(row)) for row in rows]

    def _image_root(self) -> Path | None:
        """Where all paths of images begin; ``None``: each in the folder of its file, or as configured."""
        places = likely_roots(self.origin, [entry.path for entry in self.inventory.files])
        names = [column_root(name, self.table.columns) or name for name in self.layout.images]
        if self.config.image_folder is not None or not places or not all(map(self.table.is_light, names)):
            return None
        images = []
        for index in range(min(TRIED, len(self))):
            try:
                images += [(image.content, image.folder) for image in self.stored(index).images]
            except DataError:
                continue
        return image_root(images, places)

    def prompts(self) -> list[str | None]:
        """The prompts of all pairs, read at once; `None` where it is not text."""
        cells = column_values(self.table, self.layout.prompt)
        texts = {cell: _text_or_none(cell) for cell in {cell for cell in cells if isinstance(cell, str)}}
        rows = self.index.rows[:, 0].tolist()
        return [texts[cell] if isinstance(cell := cells[row], str) else _text_or_none(cell) for row in rows]

    def place(self, index: int) -> str:
        """File and row of a pair's first image, for messages."""
        return self.table.place(int(self.index.rows[index, 0]))

    def images(self, index: int) -> list[tuple[str, str]]:
        """Place and SHA-256 of both image files of a pair.

        Raises:
            DataError: if one cannot be read.
        """
        pair = self.stored(index)
        hashes = [hashlib.sha256(_file(pair, image)).hexdigest() for image in pair.images]
        return [(f"{pair.place}: {image.name}", digest) for image, digest in zip(pair.images, hashes, strict=True)]

    def open(self, index: int) -> OpenedPair:
        """One pair decoded, in the size that it is stored in."""
        return open_pair(self.stored(index))

    def stored(self, index: int) -> StoredPair:
        """One pair as it is stored."""
        first, prompt = self._row(index), self.layout.prompt
        rows, items = self.index.rows[index].tolist(), self.index.items[index].tolist()
        names = [self.layout.images[side] for side in self.index.sides[index].tolist()]
        columns = {row: [prompt] * (row == first) for row in rows}
        for row, name in zip(rows, names, strict=True):
            columns[row].append(name)
        cells = {row: self._values(row, own) for row, own in columns.items()}
        return StoredPair(
            text=(cells[first][prompt], prompt),
            images=tuple(
                stored_image(cells[row][name], name, item, folder)
                for row, name, item, folder in zip(rows, names, items, self._folders(rows), strict=True)
            ),
            probability=float(self.index.probability[index]),
            place=" and ".join(map(self.table.place, columns)),
            key=first,
            bucket=None if self._buckets is None else self._buckets[index],
        )

    def _values(self, row: int, names: Sequence[str]) -> dict[str, Any]:
        roots = list(dict.fromkeys(column_root(name, self.table.columns) or name for name in names))
        values = self.table.row(row, roots)
        return {name: value_at(values, name) for name in names}

    def buckets(self) -> Sequence[Size] | None:
        """Height and width of the images of each pair with ``pairs.buckets``; ``None``: one size for all."""
        return self._buckets

    def blocks(self) -> Blocks | None:
        """Pairs that are read together, where ``pairs.shuffle_window`` is set; ``None``: all are shuffled together."""
        return self.table.blocks(self.index.rows[:, 0]) if isinstance(self.table, BlockedRows) else None

    def image_sizes(self, index: int) -> list[Size]:
        """Height and width of both images of a pair as they are stored; nothing of one that cannot be read."""
        try:
            pair = self.stored(index)
            return [stored_size(read_file(image.content, folder=image.folder)) for image in pair.images]
        except Exception:  # Pillow's decoders raise almost anything; whoever reads the pair says what is wrong
            return []

    def _bucketed(self) -> list[Size]:
        """The bucket of each pair; of one that cannot be read the most frequent one, in which another takes its place.

        Raises:
            DataError: if no pair can be read.
        """
        resolution = self.config.resolution
        assert resolution is not None
        choices = bucket_sizes(resolution)
        rows = tqdm(range(len(self)), desc="sizes of images", unit="pair", leave=False, disable=len(self) < 2000)
        read = [self.image_sizes(row) for row in rows]
        nearest = [nearest_bucket(sizes, choices) if sizes else None for sizes in read]
        counts = Counter(size for size in nearest if size is not None)
        if not counts:
            raise DataError(f"{self.origin}: no pair can be read; `seedpo data check` says why")
        usual = counts.most_common(1)[0][0]
        return [size or usual for size in nearest]

    def size(self) -> tuple[int, int] | None:
        """Width and height of the first pair that can be read: what all must have where no resolution is configured."""
        for index in range(len(self)) if self._size is None else ():
            try:
                pair = self.open(index)
            except DataError:
                continue
            if len({image.size for image in pair.images}) == 1:
                self._size = pair.images[0].size
                break
        return self._size
