"""The adapters against the originals' pipelines: see `agreement.py` beside this file."""

from __future__ import annotations

import pytest
import torch

from tests.rewards.agreement import CASES, Case, originals, pictures, prompts
from tests.rewards.plain_pixels import as_tensor, picture

TOLERANCE = {"clipscore": 1e-4, "hpsv3": 3e-5}
"""Largest difference of scores, 1e-5 unless given: CLIPScore is 100 times a cosine, HPSv3 reads 500 tokens."""


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return CASES[request.param](tmp_path_factory.mktemp("checkpoint"))


def test_scores_are_the_originals(case: Case) -> None:
    images, words = pictures(case.count), prompts(case.count, of=case.prompts)
    wanted = originals(case, images, words)
    found = case.reward(images, words)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, rtol=0, atol=TOLERANCE.get(case.name, 1e-5))
    assert wanted.std() > 100 * TOLERANCE.get(case.name, 1e-5)


def test_tensors_are_scored_as_files(case: Case) -> None:
    for rows in [1, 2, 7]:
        images = [picture(20, 31, seed=row) for row in range(rows)]
        from_files = case.reward(images, prompts(rows, of=case.prompts))
        assert from_files.shape == (rows,)
        for dtype in (torch.float32, torch.float64):
            given = as_tensor(images).to(dtype) / 255
            assert case.reward(given, prompts(rows, of=case.prompts)).equal(from_files)


def test_what_was_scored_before_makes_no_difference(case: Case) -> None:
    images, words = pictures(4), prompts(4, of=case.prompts)
    first = case.reward(images, words)
    case.reward(images[::-1], words[::-1])
    assert case.reward(images, words).equal(first)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_networks_of_half_precision_give_close_scores_of_full_precision(case: Case, dtype: torch.dtype) -> None:
    images, words = pictures(6), prompts(6, of=case.prompts)
    exact = case.reward(images, words)
    reward = case.reward
    try:
        rough = reward.to(dtype=dtype)(images, words)  # type: ignore[attr-defined]
    finally:
        reward.to(dtype=torch.float32)  # type: ignore[attr-defined]
    assert rough.dtype == torch.float32
    scale = 100.0 if case.name == "clipscore" else exact.abs().max()
    assert 0 < (rough - exact).abs().max() / scale < 0.1
