"""Small sets in every public layout, exactly as it is published, with the pairs that are right for them by hand.

Images are plain colours that stand for numbers, so that a pair says which image it holds. Names of columns, types,
nesting and conventions of values were looked up; each builder names its source.
"""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from tests.data.pictures import encoded

FOX, HARBOUR, TREE = "a red fox in snow", "a harbour, at dawn", "an old tree"
SIZE = 16
"""Width and height of the images."""

_COLOURS = torch.tensor([(20 + 30 * (n % 8), 20 + 30 * (n // 8 % 8), 120) for n in range(64)]) / 255


def picture(number: int, kind: str = "PNG") -> bytes:
    """The file of an image that stands for a number, 0 to 63."""
    colour = tuple(round(float(value) * 255) for value in _COLOURS[number])
    return encoded(Image.new("RGB", (SIZE, SIZE), colour), kind)


def number_in(image: Tensor) -> int:
    """The number that an image (3, height, width) stands for."""
    return int((_COLOURS - image.mean(dim=(1, 2))).abs().sum(dim=1).argmin())


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A pair that a set holds: the numbers of its images, and the probability that the first is preferred."""

    prompt: str
    chosen: int
    rejected: int
    probability: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Case:
    """A set on the disk.

    Attributes:
        source: what a user names.
        pairs: those that it holds, by hand.
        settings: of the section ``pairs``, beside the resolution.
        ties: pairs in which neither image is preferred, which are left out.
        unlabelled: pairs that nobody judged.
    """

    source: Path
    pairs: Sequence[Pair]
    settings: Mapping[str, Any] = field(default_factory=dict)
    ties: int = 0
    unlabelled: int = 0


Builder = Callable[[Path], Case]
LAYOUTS: dict[str, Builder] = {}
"""Builders of all sets, by name; each is given an empty folder."""


def layout(build: Builder) -> Builder:
    """Enters a builder."""
    LAYOUTS[build.__name__] = build
    return build


def write_pictures(folder: Path, *names: str, first: int = 0) -> None:
    """Image files of these names, which stand for the numbers from ``first`` on."""
    for number, name in enumerate(names, start=first):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        endings = {".jpg": "JPEG", ".webp": "WEBP"}
        path.write_bytes(picture(number, endings.get(path.suffix, "PNG")))


def write_json(path: Path, value: object) -> Path:
    """A JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")
    return path


def write_json_lines(path: Path, *rows: Mapping[str, Any]) -> Path:
    """A file with one object on each line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_csv(path: Path, *rows: Mapping[str, Any]) -> Path:
    """A CSV file, quoted where it must be."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(text.getvalue(), encoding="utf-8", newline="")
    return path


def write_parquet(path: Path, columns: Mapping[str, Any]) -> Path:
    """A parquet file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(dict(columns)), path)
    return path


def image_structs(*numbers: int) -> pa.Array:
    """A column of images as the ``datasets`` library stores it."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.array([{"bytes": picture(number, "JPEG"), "path": f"{number}.jpg"} for number in numbers], kind)


@layout
def pick_a_pic(folder: Path) -> Case:
    """Pick-a-Pic v2: the columns of ``yuvalkirstain/pickapic_v2``, with ties, unjudged rows and several splits.

    https://huggingface.co/datasets/yuvalkirstain/pickapic_v2
    """
    labels = [(1.0, 0.0, True), (0.0, 1.0, True), (0.5, 0.5, True), (0.0, 1.0, False)]
    rows = len(labels)

    def columns(first: int) -> dict[str, Any]:
        return {
            "are_different": [True] * rows,
            "best_image_uid": [f"uid-{row}" for row in range(rows)],
            "caption": [FOX, HARBOUR, TREE, FOX],
            "created_at": pa.array([0] * rows, pa.timestamp("ns")),
            "has_label": [judged for *_, judged in labels],
            "image_0_uid": ["a"] * rows,
            "image_0_url": ["https://example.org/a.png"] * rows,
            "image_1_uid": ["b"] * rows,
            "image_1_url": ["https://example.org/b.png"] * rows,
            "jpg_0": [picture(first + 2 * row, "JPEG") for row in range(rows)],
            "jpg_1": [picture(first + 2 * row + 1, "JPEG") for row in range(rows)],
            "label_0": [label for label, *_ in labels],
            "label_1": [label for _, label, _ in labels],
            "model_0": ["dreamlike-art/dreamlike-photoreal-2.0"] * rows,
            "model_1": ["stabilityai/stable-diffusion-xl-base-1.0"] * rows,
            "ranking_id": list(range(rows)),
            "user_id": list(range(rows)),
            "num_example_per_prompt": [1] * rows,
            "__index_level_0__": list(range(rows)),
        }

    data = folder / "data"
    write_parquet(data / "train-00000-of-00002-b66ac786bf6fb553.parquet", columns(0))
    write_parquet(data / "train-00001-of-00002-1ab7f3dd0a94ac0f.parquet", columns(8))
    write_parquet(data / "validation_unique-00000-of-00001-33ead111845fc9c4.parquet", columns(16))
    pairs = [
        pair
        for first in (0, 8)
        for pair in (
            Pair(prompt=FOX, chosen=first, rejected=first + 1),
            Pair(prompt=HARBOUR, chosen=first + 3, rejected=first + 2),
        )
    ]
    return Case(source=folder, pairs=pairs, ties=2, unlabelled=2)


@layout
def diffusers_label_0(folder: Path) -> Case:
    """What diffusers' DPO script reads: ``jpg_0``, ``jpg_1`` and ``label_0`` alone; only 0 means the second image.

    huggingface/diffusers, examples/research_projects/diffusion_dpo/train_diffusion_dpo.py, preprocess_train
    """
    columns = {
        "caption": [FOX, HARBOUR, TREE],
        "jpg_0": [picture(number, "JPEG") for number in (0, 2, 4)],
        "jpg_1": [picture(number, "JPEG") for number in (1, 3, 5)],
        "label_0": [1.0, 0.0, 0.5],
    }
    source = write_parquet(folder / "pairs.parquet", columns)
    pairs = [Pair(prompt=FOX, chosen=0, rejected=1), Pair(prompt=HARBOUR, chosen=3, rejected=2)]
    return Case(source=source, pairs=pairs, ties=1)


@layout
def text_labels(folder: Path) -> Case:
    """Pick-a-Pic's columns in JSON lines whose labels became text: "1", "0", "true", "False", "0.5"."""
    write_pictures(folder, *(f"im/{n}.png" for n in range(8)))
    labels = [("1", "0"), ("false", "True"), ("0.5", "0.5"), ("1.0", "0.0")]
    rows = [
        {
            "caption": prompt,
            "jpg_0": f"im/{2 * row}.png",
            "jpg_1": f"im/{2 * row + 1}.png",
            "label_0": first,
            "label_1": second,
        }
        for row, (prompt, (first, second)) in enumerate(zip((FOX, HARBOUR, TREE, FOX), labels, strict=True))
    ]
    pairs = [
        Pair(prompt=FOX, chosen=0, rejected=1),
        Pair(prompt=HARBOUR, chosen=3, rejected=2),
        Pair(prompt=FOX, chosen=6, rejected=7),
    ]
    return Case(source=write_json_lines(folder / "pairs.jsonl", *rows), pairs=pairs, ties=1)


@layout
def json_array(folder: Path) -> Case:
    """A JSON array of prompt, chosen and rejected, as trainers for language models take it.

    modelscope/DiffSynth-Studio#657
    """
    write_pictures(folder, *(f"images/{n}.png" for n in range(4)))
    rows = [
        {"prompt": FOX, "chosen": "images/1.png", "rejected": "images/0.png"},
        {"prompt": HARBOUR, "chosen": "images/2.png", "rejected": "images/3.png"},
    ]
    pairs = [Pair(prompt=FOX, chosen=1, rejected=0), Pair(prompt=HARBOUR, chosen=2, rejected=3)]
    return Case(source=write_json(folder / "pairs.json", rows), pairs=pairs)


@layout
def rejected_list(folder: Path) -> Case:
    """One chosen image and a list of rejected ones: a pair with each. kohya-ss/sd-scripts#1040"""
    write_pictures(folder, *(f"{n}.png" for n in range(5)))
    rows = [
        {"prompt": FOX, "chosen": "0.png", "rejected": ["1.png", "2.png"]},
        {"prompt": HARBOUR, "chosen": "3.png", "rejected": ["4.png"]},
    ]
    pairs = [
        Pair(prompt=FOX, chosen=0, rejected=1),
        Pair(prompt=FOX, chosen=0, rejected=2),
        Pair(prompt=HARBOUR, chosen=3, rejected=4),
    ]
    return Case(source=write_json_lines(folder / "pairs.jsonl", *rows), pairs=pairs)


def _hpdv2(folder: Path) -> None:
    write_pictures(folder, *(f"train/{n:08}.jpg" for n in range(4)))
    write_pictures(folder, *(f"test/{n:05}.jpg" for n in range(7)), first=4)
    rows = [
        {"human_preference": [1, 0], "prompt": FOX, "file_path": ["00000000.jpg", "00000001.jpg"]},
        {"human_preference": [0, 1], "prompt": HARBOUR, "file_path": ["00000002.jpg", "00000003.jpg"]},
    ]
    write_json(folder / "train.json", rows)
    ranked = [
        {
            "prompt": TREE,
            "image_path": ["00000.jpg", "00001.jpg", "00002.jpg"],
            "rank": [1, 2, 0],
            "raw_annotations": [{"rank": [1, 2, 0], "user_hash": "5a1"}, {"rank": [2, 1, 0], "user_hash": "77c"}],
        },
        {
            "prompt": FOX,
            "image_path": ["00003.jpg", "00004.jpg", "00005.jpg", "00006.jpg"],
            "rank": [3, 0, 2, 1],
            "raw_annotations": [{"rank": [3, 0, 2, 1], "user_hash": "5a1"}],
        },
    ]
    write_json(folder / "test.json", ranked)


@layout
def hpdv2_train(folder: Path) -> Case:
    """HPDv2's ``train.json``: ``human_preference`` is 1 at the preferred one of two files.

    https://huggingface.co/datasets/ymhao/HPDv2 (card); tgxs002/HPSv2, hpsv2/src/training/data.py (folder + name)
    """
    _hpdv2(folder)
    pairs = [Pair(prompt=FOX, chosen=0, rejected=1), Pair(prompt=HARBOUR, chosen=3, rejected=2)]
    return Case(source=folder / "train.json", pairs=pairs, settings={"image_folder": str(folder / "train")})


@layout
def hpdv2_train_by_split(folder: Path) -> Case:
    """The folder of HPDv2, without a key: the training pairs are read, whose images lie in ``train/``."""
    _hpdv2(folder)
    pairs = [Pair(prompt=FOX, chosen=0, rejected=1), Pair(prompt=HARBOUR, chosen=3, rejected=2)]
    return Case(source=folder, pairs=pairs)


@layout
def hpdv2_test_all(folder: Path) -> Case:
    """HPDv2's ``test.json``: a lower rank is a better one. All pairs of images.

    tgxs002/HPSv2, hpsv2/evaluation.py (places of sorted scores are compared with the ranks)
    """
    _hpdv2(folder)
    best_first = {TREE: (6, 4, 5), FOX: (8, 10, 9, 7)}
    pairs = [
        Pair(prompt=prompt, chosen=better, rejected=worse)
        for prompt, order in best_first.items()
        for place, better in enumerate(order)
        for worse in order[place + 1 :]
    ]
    settings = {"image_folder": str(folder / "test"), "split": "test", "from_scores": "all"}
    return Case(source=folder, pairs=pairs, settings=settings)


@layout
def hpdv2_test_best_worst(folder: Path) -> Case:
    """The same, the best image of each prompt against the worst."""
    _hpdv2(folder)
    settings = {"image_folder": str(folder / "test"), "split": "test", "from_scores": "best-worst"}
    pairs = [Pair(prompt=TREE, chosen=6, rejected=5), Pair(prompt=FOX, chosen=8, rejected=7)]
    return Case(source=folder / "test.json", pairs=pairs, settings=settings)


@layout
def hpdv3(folder: Path) -> Case:
    """HPDv3: the first path is always the preferred one; ``confidence`` is a probability, which old entries lack.

    https://huggingface.co/datasets/MizzenAI/HPDv3; MizzenAI/HPSv3, README, "Pairwise Training Data Format"
    """
    write_pictures(folder, *(f"images/{n}.jpg" for n in range(6)))
    rows = [
        {
            "prompt": FOX,
            "path1": "images/1.jpg",
            "path2": "images/0.jpg",
            "confidence": 0.95,
            "choice_dist": [12, 7],
            "model1": "flux_dev",
            "model2": "sdxl",
        },
        {
            "prompt": HARBOUR,
            "path1": "images/2.jpg",
            "path2": "images/3.jpg",
            "confidence": 0.75,
            "choice_dist": [9, 3],
            "model1": "kolors",
            "model2": "sd2",
        },
        {
            "prompt": TREE,
            "path1": "images/4.jpg",
            "path2": "images/5.jpg",
            "confidence": None,
            "choice_dist": None,
            "model1": "hpdv2",
            "model2": "hpdv2",
        },
    ]
    pairs = [
        Pair(prompt=FOX, chosen=1, rejected=0, probability=0.95),
        Pair(prompt=HARBOUR, chosen=2, rejected=3, probability=0.75),
        Pair(prompt=TREE, chosen=4, rejected=5),
    ]
    return Case(source=write_json(folder / "train.json", rows), pairs=pairs)


_REWARD_DB = [("000864-0061", FOX, rank) for rank in (2, 1, 3, 3)] + [("000999-0001", HARBOUR, rank) for rank in (1, 2)]


def _reward_db_pairs() -> list[Pair]:
    """Numbers stand in the order of the rows; the two images of rank 3 are a tie."""
    return [
        Pair(prompt=FOX, chosen=1, rejected=0),
        Pair(prompt=FOX, chosen=0, rejected=2),
        Pair(prompt=FOX, chosen=0, rejected=3),
        Pair(prompt=FOX, chosen=1, rejected=2),
        Pair(prompt=FOX, chosen=1, rejected=3),
        Pair(prompt=HARBOUR, chosen=4, rejected=5),
    ]


@layout
def image_reward_db(folder: Path) -> Case:
    """ImageRewardDB as parquet: one image a row; rank 1 is the best image of its prompt, and ranks may be equal.

    https://huggingface.co/datasets/THUDM/ImageRewardDB (card and loading script); THUDM/ImageReward,
    train/src/rank_pair_dataset.py (the lower rank is the better image, equal ones make no pair)
    """
    ids, prompts, ranks = zip(*_REWARD_DB, strict=True)
    columns = {
        "image": image_structs(*range(6)),
        "prompt_id": list(ids),
        "prompt": list(prompts),
        "classification": ["Animals"] * 6,
        "image_amount_in_total": pa.array([4, 4, 4, 4, 2, 2], pa.int8()),
        "rank": pa.array(ranks, pa.int8()),
        "overall_rating": pa.array([4, 5, 3, 3, 6, 2], pa.int8()),
        "image_text_alignment_rating": pa.array([4, 5, 3, 3, 6, 2], pa.int8()),
        "fidelity_rating": pa.array([4, 5, 3, 3, 6, 2], pa.int8()),
    }
    source = write_parquet(folder / "8k" / "train-00000-of-00001.parquet", columns)
    return Case(source=source, pairs=_reward_db_pairs(), settings={"from_scores": "all"}, ties=1)


@layout
def image_reward_db_json(folder: Path) -> Case:
    """ImageRewardDB's ``images/train/train_1/train_1.json``: paths begin at the root of the set. The same card."""
    write_pictures(folder, *(f"images/train/train_1/{n}.webp" for n in range(6)))
    rows = [
        {
            "image_path": f"images/train/train_1/{number}.webp",
            "prompt_id": prompt_id,
            "prompt": prompt,
            "classification": "People",
            "image_amount_in_total": 4,
            "rank": rank,
            "overall_rating": 4,
            "image_text_alignment_rating": 3,
            "fidelity_rating": 4,
        }
        for number, (prompt_id, prompt, rank) in enumerate(_REWARD_DB)
    ]
    source = write_json(folder / "images" / "train" / "train_1" / "train_1.json", rows)
    settings = {"from_scores": "all", "image_folder": str(folder)}
    return Case(source=source, pairs=_reward_db_pairs(), settings=settings, ties=1)


@layout
def ranked_list(folder: Path) -> Case:
    """ImageReward's list of ``generations`` with their ``ranking``, 1 the best.

    zai-org/ImageReward#2; tgxs002/HPSv2, hpsv2/src/training/data.py, ImageRewardDataset
    """
    write_pictures(folder, *(f"{n}.png" for n in range(3)))
    rows = [{"id": "1", "prompt": FOX, "generations": ["0.png", "1.png", "2.png"], "ranking": [2, 3, 1]}]
    pairs = [
        Pair(prompt=FOX, chosen=0, rejected=1),
        Pair(prompt=FOX, chosen=2, rejected=0),
        Pair(prompt=FOX, chosen=2, rejected=1),
    ]
    return Case(source=write_json(folder / "train.json", rows), pairs=pairs, settings={"from_scores": "all"})


@layout
def ranked_images(folder: Path) -> Case:
    """A list of ``images`` with their ``ranks``, in JSON lines."""
    write_pictures(folder, *(f"{n}.png" for n in range(3)))
    rows = [{"prompt": FOX, "images": ["0.png", "1.png", "2.png"], "ranks": [2, 3, 1]}]
    pairs = [Pair(prompt=FOX, chosen=2, rejected=1)]
    source = write_json_lines(folder / "ranked.jsonl", *rows)
    return Case(source=source, pairs=pairs, settings={"from_scores": "best-worst"})


@layout
def open_image_preferences_binarized(folder: Path) -> Case:
    """``data-is-better-together/open-image-preferences-v1-binarized``: chosen and rejected are images.

    https://huggingface.co/datasets/data-is-better-together/open-image-preferences-v1-binarized
    """
    columns = {
        "prompt": [FOX, HARBOUR],
        "chosen": image_structs(1, 2),
        "rejected": image_structs(0, 3),
        "chosen_model": ["dev", "sd"],
        "rejected_model": ["sd", "dev"],
        "evolution": ["quality", "simplified"],
        "category": ["Cinematic", "Anime"],
        "sub_category": ["fox", "harbour"],
    }
    write_parquet(folder / "data" / "train-00000-of-00001.parquet", columns)
    pairs = [Pair(prompt=FOX, chosen=1, rejected=0), Pair(prompt=HARBOUR, chosen=2, rejected=3)]
    return Case(source=folder, pairs=pairs)


@layout
def open_image_preferences_results(folder: Path) -> Case:
    """``data-is-better-together/open-image-preferences-v1-results``, with the images fetched beside the table.

    The features are those of the card: ``images`` is a struct of two texts, and a response names a field of it.
    https://huggingface.co/datasets/data-is-better-together/open-image-preferences-v1-results
    """
    write_pictures(folder, *(f"image_simplified_sd/{n}.jpg" for n in range(8)))
    kind = pa.struct([("image_1", pa.string()), ("image_2", pa.string())])
    names = [f"image_simplified_sd/{n}.jpg" for n in range(8)]
    responses = [["image_1"], ["image_2"], ["both_good"], None]
    columns = {
        "id": [str(row) for row in range(4)],
        "status": ["completed"] * 3 + ["pending"],
        "_server_id": ["0b0e6a9c"] * 4,
        "images": pa.array([{"image_1": names[2 * row], "image_2": names[2 * row + 1]} for row in range(4)], kind),
        "prompt": [FOX, HARBOUR, TREE, FOX],
        "model_1": ["sd"] * 4,
        "model_2": ["dev"] * 4,
        "evolution": ["simplified"] * 4,
        "category": ["Cinematic"] * 4,
        "sub_category": ["snow"] * 4,
        "preference.responses": pa.array(responses, pa.list_(pa.string())),
        "preference.responses.users": pa.array([["u"] if given else None for given in responses]),
        "preference.responses.status": pa.array([["submitted"] if given else None for given in responses]),
    }
    source = write_parquet(folder / "train-00000-of-00001.parquet", columns)
    pairs = [Pair(prompt=FOX, chosen=0, rejected=1), Pair(prompt=HARBOUR, chosen=3, rejected=2)]
    return Case(source=source, pairs=pairs, ties=1, unlabelled=1)


@layout
def argilla(folder: Path) -> Case:
    """What Argilla's ``to_datasets`` gives for two image fields and a label question; a discarded answer is none.

    https://docs.argilla.io (export of records: a column for each field, ``QUESTION.responses`` and its users, status)
    """
    responses = [["image_2"], ["image_1"], ["image_1"], None]
    status = [["submitted"], ["submitted"], ["discarded"], None]
    columns = {
        "id": [f"record-{row}" for row in range(4)],
        "status": ["completed", "completed", "pending", "pending"],
        "_server_id": ["5f8f"] * 4,
        "prompt": [FOX, HARBOUR, TREE, FOX],
        "image_1": image_structs(0, 2, 4, 6),
        "image_2": image_structs(1, 3, 5, 7),
        "preference.responses": pa.array(responses, pa.list_(pa.string())),
        "preference.responses.users": pa.array([["u"] if given else None for given in responses]),
        "preference.responses.status": pa.array(status, pa.list_(pa.string())),
        "preference.suggestion": pa.array([None] * 4, pa.string()),
    }
    source = write_parquet(folder / "records.parquet", columns)
    pairs = [Pair(prompt=FOX, chosen=1, rejected=0), Pair(prompt=HARBOUR, chosen=2, rejected=3)]
    return Case(source=source, pairs=pairs, unlabelled=2)


@layout
def rapidata(folder: Path) -> Case:
    """Rapidata's sets: votes weighted by reliability for each image and question; preference is w1 / (w1 + w2).

    https://huggingface.co/datasets/Rapidata (columns ``weighted_results_image1_preference``, ``..._alignment``)
    """
    columns = {
        "prompt": [FOX, HARBOUR, TREE],
        "image1": image_structs(0, 2, 4),
        "image2": image_structs(1, 3, 5),
        "model1": ["flux-1-pro"] * 3,
        "model2": ["stable-diffusion-3"] * 3,
        "weighted_results_image1_preference": pa.array([0.75, 0.5, 1.5], pa.float32()),
        "weighted_results_image2_preference": pa.array([0.25, 2.0, 1.5], pa.float32()),
        "detailed_results_preference": ["[]"] * 3,
        "weighted_results_image1_alignment": pa.array([0.1, 0.9, 0.5], pa.float32()),
        "weighted_results_image2_alignment": pa.array([0.9, 0.1, 0.5], pa.float32()),
        "detailed_results_alignment": ["[]"] * 3,
    }
    source = write_parquet(folder / "train-00000-of-00001.parquet", columns)
    pairs = [
        Pair(prompt=FOX, chosen=0, rejected=1, probability=0.75),
        Pair(prompt=HARBOUR, chosen=3, rejected=2, probability=0.8),
    ]
    return Case(source=source, pairs=pairs, ties=1)


def _label_studio(folder: Path) -> tuple[list[dict[str, Any]], list[Pair]]:
    """The tasks of a project with ``<Pairwise name="pw" toName="image1,image2"/>``, and which image was selected."""
    write_pictures(folder, *(f"{n}.png" for n in range(4)))
    tasks = [
        {"prompt": FOX, "image1": "0.png", "image2": "1.png", "selected": "left"},
        {"prompt": HARBOUR, "image1": "2.png", "image2": "3.png", "selected": "right"},
    ]
    return tasks, [Pair(prompt=FOX, chosen=0, rejected=1), Pair(prompt=HARBOUR, chosen=3, rejected=2)]


@layout
def label_studio_json(folder: Path) -> Case:
    """Label Studio's export as JSON: tasks with their annotations. HumanSignal/label-studio#151

    A task that was skipped has a cancelled annotation, which is none.
    """
    tasks, pairs = _label_studio(folder)

    def annotation(number: int, result: list[dict[str, Any]], *, cancelled: bool = False) -> dict[str, Any]:
        return {
            "id": number,
            "completed_by": 1,
            "result": result,
            "was_cancelled": cancelled,
            "ground_truth": False,
            "created_at": "2024-03-29T05:39:54.721157Z",
            "updated_at": "2024-03-29T05:52:32.001770Z",
            "lead_time": 37.426,
            "prediction": {},
            "result_count": 0,
            "task": number,
        }

    def result(selected: str) -> dict[str, Any]:
        return {
            "value": {"selected": selected},
            "id": "gew3t9fgkg",
            "from_name": "pw",
            "to_name": "image1,image2",
            "type": "pairwise",
            "origin": "manual",
        }

    rows = [
        {
            "id": number,
            "annotations": [annotation(number, [result(task["selected"])])],
            "file_upload": "tasks.json",
            "drafts": [],
            "predictions": [],
            "data": {key: value for key, value in task.items() if key != "selected"},
            "meta": {},
            "created_at": "2024-03-29T05:39:54.721157Z",
            "project": 1,
        }
        for number, task in enumerate(tasks, start=1)
    ]
    skipped = rows[0] | {"id": 3, "annotations": [annotation(3, [], cancelled=True)]}
    source = write_json(folder / "project-1-at-2024-03-29.json", [*rows, skipped])
    return Case(source=source, pairs=pairs, unlabelled=1)


def _label_studio_rows(folder: Path, *, as_text: bool) -> tuple[list[dict[str, Any]], list[Pair]]:
    """Flat rows: a control's results are a list, which CSV holds as JSON.

    HumanSignal/label-studio-converter, utils.prettify_result and converter.convert_to_csv
    """
    tasks, pairs = _label_studio(folder)
    rows = []
    for number, task in enumerate(tasks, start=1):
        results = [{"selected": task["selected"]}]
        rows.append(
            {
                "prompt": task["prompt"],
                "image1": task["image1"],
                "image2": task["image2"],
                "id": number,
                "pw": json.dumps(results) if as_text else results,
                "annotator": 4,
                "annotation_id": 23670 + number,
                "created_at": "2024-03-29T05:39:54.721157Z",
                "updated_at": "2024-03-29T05:52:32.001770Z",
                "lead_time": 37.426,
            }
        )
    return rows, pairs


@layout
def label_studio_json_min(folder: Path) -> Case:
    """Label Studio's export as JSON_MIN."""
    rows, pairs = _label_studio_rows(folder, as_text=False)
    return Case(source=write_json(folder / "project-1.json", rows), pairs=pairs)


@layout
def label_studio_csv(folder: Path) -> Case:
    """Label Studio's export as CSV."""
    rows, pairs = _label_studio_rows(folder, as_text=True)
    return Case(source=write_csv(folder / "project-1.csv", *rows), pairs=pairs)


@layout
def label_studio_local_files(folder: Path) -> Case:
    """The same from local storage and uploads: paths are those of the server. HumanSignal/label-studio#5649

    They begin in the server's document root, and in its folder of media.
    """
    rows, pairs = _label_studio_rows(folder, as_text=False)
    write_pictures(folder, "face matching/0.png", "upload/1/5c8d-1.png")
    rows[0] |= {"image1": "/data/local-files/?d=face%20matching/0.png", "image2": "/data/upload/1/5c8d-1.png"}
    return Case(source=write_json(folder / "project-1.json", rows), pairs=pairs)


@layout
def kohya_folders(folder: Path) -> Case:
    """Folders ``w`` (won) and ``l`` (lost) with ``.caption`` beside the image. kohya-ss/sd-scripts#1427"""
    write_pictures(folder, "w/fox.png", "l/fox.png", "w/harbour.jpg", "l/harbour.png")
    (folder / "w" / "fox.caption").write_text(FOX + "\n", encoding="utf-8")
    (folder / "w" / "harbour.caption").write_text(HARBOUR + "\n", encoding="utf-8")
    pairs = [Pair(prompt=FOX, chosen=0, rejected=1), Pair(prompt=HARBOUR, chosen=2, rejected=3)]
    return Case(source=folder, pairs=pairs)


def _split_folders(folder: Path) -> None:
    names = [f"{split}/{side}/fox.png" for split in ("train", "test") for side in ("chosen", "rejected")]
    write_pictures(folder, *names)
    (folder / "train" / "chosen" / "fox.txt").write_text(FOX, encoding="utf-8")
    (folder / "test" / "chosen" / "fox.txt").write_text(HARBOUR, encoding="utf-8")


@layout
def split_folders(folder: Path) -> Case:
    """Folders ``train/chosen`` and ``test/chosen``: the pairs of the training split. kohya-ss/sd-scripts#1427"""
    _split_folders(folder)
    return Case(source=folder, pairs=[Pair(prompt=FOX, chosen=0, rejected=1)])


@layout
def split_folders_test(folder: Path) -> Case:
    """The same, of the split that is asked for."""
    _split_folders(folder)
    return Case(source=folder, pairs=[Pair(prompt=HARBOUR, chosen=2, rejected=3)], settings={"split": "test"})


@layout
def likes(folder: Path) -> Case:
    """Likes of single images: each liked one against each disliked one of its prompt; the harbour has no partner."""
    columns = {
        "prompt": [FOX, FOX, FOX, HARBOUR],
        "image": image_structs(0, 1, 2, 3),
        "liked": [True, False, True, True],
    }
    pairs = [Pair(prompt=FOX, chosen=0, rejected=1), Pair(prompt=FOX, chosen=2, rejected=1)]
    return Case(source=write_parquet(folder / "likes.parquet", columns), pairs=pairs, settings={"from_scores": "all"})


@layout
def conversational(folder: Path) -> Case:
    """TRL's conversational prompt: one message of the user, whose content is text or a list of parts.

    https://huggingface.co/docs/trl/dataset_formats
    """
    write_pictures(folder, *(f"{n}.png" for n in range(4)))
    rows = [
        {"prompt": [{"role": "user", "content": FOX}], "chosen": "0.png", "rejected": "1.png"},
        {
            "prompt": [{"role": "user", "content": [{"type": "text", "text": HARBOUR}]}],
            "chosen": "3.png",
            "rejected": "2.png",
        },
    ]
    pairs = [Pair(prompt=FOX, chosen=0, rejected=1), Pair(prompt=HARBOUR, chosen=3, rejected=2)]
    return Case(source=write_json_lines(folder / "pairs.jsonl", *rows), pairs=pairs)


@layout
def webdataset(folder: Path) -> Case:
    """Pick-a-Pic's columns as WebDataset: ``KEY.jpg_0.jpg``, ``KEY.jpg_1.jpg`` and ``KEY.json``."""
    path = folder / "pairs-000000.tar"
    labels = [(FOX, 1.0, 0.0), (HARBOUR, 0.0, 1.0), (TREE, 0.5, 0.5)]
    with tarfile.open(path, "w") as archive:
        for row, (caption, first, second) in enumerate(labels):
            texts = json.dumps({"caption": caption, "label_0": first, "label_1": second}).encode()
            files = {
                f"{row:06}.jpg_0.jpg": picture(2 * row, "JPEG"),
                f"{row:06}.jpg_1.jpg": picture(2 * row + 1, "JPEG"),
                f"{row:06}.json": texts,
            }
            for name, content in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    pairs = [Pair(prompt=FOX, chosen=0, rejected=1), Pair(prompt=HARBOUR, chosen=3, rejected=2)]
    return Case(source=path, pairs=pairs, ties=1)


@layout
def d3po(folder: Path) -> Case:
    """D3PO's folder of samples: ``prompt.json``, ``images/00000.png`` and one score for each of an entry's images.

    yk7333/d3po, scripts/sample.py (seven images a prompt, numbered through), scripts/train.py (the higher score is
    the better image; equal ones make no pair)
    """
    write_pictures(folder, *(f"images/{n:05}.png" for n in range(14)))
    write_json(folder / "prompt.json", [FOX, HARBOUR])
    write_json(folder / "scores.json", [[0, 1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 0, 1]])
    (folder / "sample.pkl").write_bytes(b"latents")
    pairs = [Pair(prompt=FOX, chosen=1, rejected=n) for n in (0, 2, 3, 4, 5, 6)]
    pairs += [Pair(prompt=HARBOUR, chosen=n, rejected=12) for n in (7, 8, 9, 10, 11, 13)]
    return Case(source=folder, pairs=pairs, settings={"from_scores": "all"})
