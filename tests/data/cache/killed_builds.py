"""Cache builds that are killed at every place where it could matter; started by a test.

Each build is a fork of this process. A *place* is a call that touches the disk (flush, rename) or encodes a pair. Build
n kills itself (SIGKILL) right before its n-th place; another one resumes it; the outcome must be what a build that was
never killed gives, and only what was not stored may be encoded again.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from seedpo.data.cache import store as stores
from seedpo.data.cache.check import check_folder
from seedpo.data.cache.pairs import EncodedPairs
from seedpo.data.cache.store import Store, build_lock
from tests.data.cache.toys import ToyModel, ToyPairs
from tests.training.crash_runs import in_child


def pairs_of(root: Path) -> tuple[EncodedPairs, ToyModel, list[Store]]:
    model = ToyModel()
    latents, prompts = (Store(root, kind, {}) for kind in ("latents", "prompts"))
    return EncodedPairs(ToyPairs(), model, latents=latents, prompts=prompts), model, [latents, prompts]


def build(root: Path) -> int:
    """Fills a cache, and notes how many images it encoded."""
    with build_lock(root):
        pairs, model, filled = pairs_of(root)
        for store in filled:
            store.prepare()
        for row in range(len(pairs)):
            for mirrored in (False, True):
                pairs.fill(row, mirrored)
        for store in filled:
            store.flush()
        (root / "encoded.json").write_text(json.dumps(model.encoded))
    return 0


def killing(kill_before: int) -> list[str]:
    names: list[str] = []

    def watch(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **named: Any) -> Any:
            names.append(name)
            if len(names) == kill_before:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **named)

        return watched

    for name in ("replace", "fsync"):
        setattr(os, name, watch(name, getattr(os, name)))
    ToyModel.encode_images = watch("encode", ToyModel.encode_images)
    return names


def killed(root: Path, kill_before: int) -> int:
    killing(kill_before)
    return build(root)


def complete(root: Path) -> bool:
    """Whether every pair comes from the cache as it is encoded live, and the folder is intact."""
    pairs, model, _ = pairs_of(root)
    live, _, _ = pairs_of(root / "empty")
    for mirrored in (False, True):
        rows, directions = list(range(len(pairs))), [mirrored] * len(pairs)
        stored, fresh = pairs.encode(rows, directions), live.encode(rows, directions)
        if not torch.equal(stored.chosen_latents, fresh.chosen_latents):
            return False
        if not torch.equal(stored.conditioning.prompt_embeds, fresh.conditioning.prompt_embeds):
            return False
    reports = check_folder(root)
    return model.encoded == model.embedded == 0 and not any(report.damaged for report in reports)


def count_places(root: Path) -> int:
    names = killing(0)
    build(root)
    (root / "places.json").write_text(json.dumps(len(names)))
    return 0


def main(root: Path) -> None:
    stores.SHARD_ENTRIES = 3
    if in_child(lambda: count_places(root / "whole")) != 0:
        raise SystemExit("the uninterrupted build failed")
    places = json.loads((root / "whole" / "places.json").read_text())
    whole = json.loads((root / "whole" / "encoded.json").read_text())
    outcomes = []
    for number in range(1, places + 1, 3):
        path = root / f"killed-{number}"
        status = in_child(lambda path=path, number=number: killed(path, number))
        after = in_child(lambda path=path: build(path))
        encoded = json.loads((path / "encoded.json").read_text()) if after == 0 else None
        outcomes.append(
            {"place": number, "status": status, "complete": after == 0 and complete(path), "encoded_after": encoded}
        )
    result = {"whole": whole, "killed": outcomes}
    (root / "outcomes.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
