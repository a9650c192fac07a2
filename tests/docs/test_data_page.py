"""Every command in the page of data reads a set in the layout that it stands beside."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from seedpo.cli.shared import read_changes
from seedpo.data.reading import load_pairs
from seedpo.data.settings import PairsConfig
from tests.data.layouts.published import FOX, LAYOUTS, write_csv, write_pictures

PAGE = Path(__file__).parents[2] / "docs" / "data.md"

NAMES = {
    "kohya's folders": "kohya_folders",
    "folders for each split": "split_folders_test",
    "Pick-a-Pic v1, v2": "pick_a_pic",
    "what diffusers' DPO script reads": "diffusers_label_0",
    "HPDv2, training": "hpdv2_train",
    "HPDv2, test": "hpdv2_test_all",
    "HPDv3": "hpdv3",
    "ImageRewardDB": "image_reward_db_json",
    "ImageReward's lists": "ranked_list",
    "other ranked or scored lists": "ranked_images",
    "one chosen, several rejected": "rejected_list",
    "likes of single images": "likes",
    "open-image-preferences, `-results`; Argilla": "argilla",
    "Rapidata": "rapidata",
    "Label Studio: JSON, JSON_MIN, CSV": "label_studio_json_min",
    "D3PO's samples": "d3po",
    "WebDataset": "webdataset",
}
"""Builders of published layouts, by the first column of the table."""

OWN = {
    "a table of your own": {"prompt": FOX, "chosen": "0.png", "rejected": "1.png"},
    "the same with other names": {"text": FOX, "a": "0.png", "b": "1.png"},
    "scored images": {"prompt": FOX, "image": "0.png", "score": 1.0},
}
"""Rows of tables that nobody published."""

ELSEWHERE = {"open-image-preferences, `-binarized`", "a folder of `save_to_disk`", "a set of the hub"}
"""Sets that need the network or the package ``datasets``."""


def commands() -> dict[str, str]:
    """What stands behind `seedpo data check`, by what the reader has."""
    table = PAGE.read_text(encoding="utf-8").split("| what you have |")[1].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    return {first: last.strip("`") for first, _, last in rows}


def test_every_layout_has_a_command() -> None:
    assert set(commands()) == set(NAMES) | set(OWN) | ELSEWHERE | {"folders of images"}


@pytest.mark.parametrize("what", [*NAMES, *OWN, "folders of images"])
def test_commands_read_pairs(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    place, *options = shlex.split(commands()[what])
    folder = Path(place if place.endswith("/") else Path(place).parent)
    folder.mkdir(parents=True, exist_ok=True)
    if what in NAMES:
        source = LAYOUTS[NAMES[what]](folder).source
        if source.is_file() and "*" not in place and not place.endswith("/"):
            source.rename(place)
    elif what in OWN:
        write_pictures(folder, "0.png", "1.png")
        others = {"image": "1.png", "score": 0.0} if what == "scored images" else {}
        write_csv(Path(place), OWN[what], OWN[what] | others)
    else:
        write_pictures(folder, "chosen/a.png", "rejected/a.png")
        (folder / "chosen" / "a.txt").write_text(FOX, encoding="utf-8")
    assert options[::2] == ["--set"] * (len(options) // 2)
    pairs = load_pairs(place, PairsConfig.model_validate(read_changes(options[1::2]).get("pairs", {})))
    first = pairs[0]
    assert first.prompt
    assert not (first.chosen == first.rejected).all()
