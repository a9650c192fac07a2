from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from seedpo.errors import DataError
from seedpo.rewards.aesthetic import aesthetic, mlp_of
from tests.rewards.plain_pixels import picture
from tests.rewards.small_checkpoints import rating_weights, write_aesthetic


def test_either_published_name_is_read(tmp_path: Path) -> None:
    scores = []
    for name in ("aesthetic-model.pth", "sac+logos+ava1-l14-linearMSE.pth"):
        write_aesthetic(tmp_path / name, file=name)
        scores.append(aesthetic(str(tmp_path / name))([picture(20, 20, seed=0)], ["a cat"]))
    assert scores[0].equal(scores[1])


def test_the_prompt_plays_no_part(tmp_path: Path) -> None:
    write_aesthetic(tmp_path)
    reward = aesthetic(str(tmp_path))
    images = [picture(20, 20, seed=0)] * 2
    assert reward(images, ["a cat", ""])[0] == reward(images, ["", "a dog"])[1]


def test_published_shapes() -> None:
    shapes = {0: (1024, 768), 2: (128, 1024), 4: (64, 128), 6: (16, 64), 7: (1, 16)}
    held = {f"layers.{place}.weight": torch.zeros(shape) for place, shape in shapes.items()}
    held |= {f"layers.{place}.bias": torch.full((shape[0],), 5.0) for place, shape in shapes.items()}
    assert mlp_of(held, origin="w.pth")(torch.ones(2, 768)).tolist() == [[5.0], [5.0]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers.7.bias": None}, r"lacks layers\.7\.bias"),
        ({"layers.0.weight": None}, r"lacks layers\.0\.weight"),
        ({"layers.2.weight": torch.ones(8, 3)}, r"wrong shape for layers\.2\.weight \(8, 3\) instead of \(8, 10\)"),
        ({"layers.1.weight": torch.ones(1)}, r"also holds layers\.1\.weight"),
    ],
)
def test_weights_that_do_not_fit_are_named(changes: dict[str, Tensor | None], message: str) -> None:
    held = {name: value for name, value in (rating_weights() | changes).items() if value is not None}
    with pytest.raises(DataError, match=message):
        mlp_of(held, origin="w.pth")


class TestPlaces:
    """What is wrong with a folder is said before anything is scored."""

    def test_no_mlp(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"has neither aesthetic-model\.pth nor sac\+logos"):
            aesthetic(str(tmp_path))

    def test_a_clip_of_another_size(self, tmp_path: Path) -> None:
        write_aesthetic(tmp_path)
        torch.save(rating_weights(embedding=13), tmp_path / "aesthetic-model.pth")
        with pytest.raises(DataError, match=r"rates embeddings of 13 numbers, the CLIP in .* gives 12"):
            aesthetic(str(tmp_path))

    def test_no_clip_and_no_hub(self, tmp_path: Path) -> None:
        torch.save(rating_weights(), tmp_path / "aesthetic-model.pth")
        with pytest.raises(DataError, match=r"openai/clip-vit-large-patch14"):
            aesthetic(str(tmp_path))
