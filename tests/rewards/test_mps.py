"""MPS: what its agreement in `test_agreement.py` leaves open."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from seedpo.errors import DataError
from seedpo.rewards.clip import read_configuration
from seedpo.rewards.mps import (
    AESTHETICS,
    ALIGNMENT,
    DETAIL,
    kept_tokens,
    mps,
    mps_aesthetics,
    mps_alignment,
    mps_detail,
    network_of,
)
from tests.rewards import plain_mps
from tests.rewards.agreement import pictures, prompts


def test_tokens_near_the_condition_are_kept() -> None:
    condition = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    angles = torch.tensor([0.0, 0.5, 1.2, 2.5, 4.0])
    tokens = 5.0 * torch.stack([angles.cos(), angles.sin()], 1)
    nearest = [max(math.cos(a), math.sin(a)) for a in angles.tolist()]
    assert kept_tokens(tokens, condition).tolist() == [near / max(nearest) > 0.3 for near in nearest]
    assert kept_tokens(torch.tensor([[-3.0, -4.0]]), condition).tolist() == [True]  # a greatest product below 0


@pytest.mark.parametrize(
    ("load", "condition"), [(mps_aesthetics, AESTHETICS), (mps_detail, DETAIL), (mps_alignment, ALIGNMENT)]
)
def test_aspects_are_other_conditions(tmp_path: Path, load: type[object], condition: str) -> None:
    weights = plain_mps.publish(tmp_path)
    images, words = pictures(5), prompts(5)
    found = load(str(tmp_path))(images, words)  # type: ignore[call-arg, operator]
    plain = plain_mps.Plain(weights, condition=condition)
    wanted = torch.tensor([plain.score(image, word) for image, word in zip(images, words, strict=True)])
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def test_names_without_the_prefix_of_the_hubs_copy(tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    (tmp_path / "own").mkdir()
    plain_mps.publish(tmp_path / "hub")
    plain_mps.publish(tmp_path / "own", prefix="")
    images, words = pictures(3), prompts(3)
    assert mps(str(tmp_path / "hub"))(images, words).equal(mps(str(tmp_path / "own"))(images, words))


BROKEN = [
    ({"cross_model.layers.0.0.fn.to_kv.weight": None}, r"lacks cross_model\.layers\.0\.0\.fn\.to_kv\.weight"),
    ({"model.visual_projection.weight": None}, r"lacks model\.visual_projection\.weight"),
    ({"cross_model.layers.2.0.fn.to_q.weight": torch.ones(1)}, r"lacks cross_model\.layers\.2\.0\.fn\.norm\.weight"),
    ({"head.weight": torch.ones(1)}, r"also holds head\.weight"),
    ({"cross_model.layers.1.1.fn.norm.bias": torch.ones(3)}, r"wrong shape for cross_model\.layers\.1\.1\.fn\.norm"),
]


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    weights, configuration = plain_mps.publish(tmp_path), read_configuration(tmp_path / "config.json")
    for changes, message in BROKEN:
        changed = {name: value for name, value in (weights | changes).items() if value is not None}
        with pytest.raises(DataError, match=f"w.safetensors.*{message}") as caught:
            network_of(changed, configuration, origin="w.safetensors")
        assert "\n" not in str(caught.value)


def test_the_published_pickle_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "MPS_overall_checkpoint.pth").write_bytes(b"\x80\x02cos\nsystem\n")
    with pytest.raises(DataError, match=r"pickled Python object.*state_dict\(\).*RE-N-Y/mpsv1"):
        mps(str(tmp_path))
    save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors")
    with pytest.raises(DataError, match=r"a\.safetensors does not fit the network"):
        mps(str(tmp_path))
