from __future__ import annotations

import pytest
import torch
from torch import Tensor

from seedpo.core.candidate_noise import CandidateNoise, shaped_noise
from seedpo.core.sampling import drawn_log_prob, step_candidates
from seedpo.core.transitions import Transition

SHAPE = (2, 3, 3)
D = 18
KINDS: tuple[CandidateNoise, ...] = ("independent", "equal_norm", "antithetic")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(kind: CandidateNoise, *, rows: int = 5, count: int = 4) -> Tensor:
    return shaped_noise((rows, count, *SHAPE), kind=kind, generator=seeded())


def transition(rows: int, *, std: float = 0.5) -> Transition:
    mean = torch.randn(rows, *SHAPE, generator=seeded(1))
    return Transition(mean=mean, std=torch.full((rows,), std), predicted_original=torch.zeros_like(mean))


def test_independent_is_what_torch_draws_bit_for_bit() -> None:
    assert torch.equal(noise("independent"), torch.randn(5, 4, *SHAPE, generator=seeded()))


def test_equal_norm_keeps_directions_and_takes_the_first_length() -> None:
    plain, shaped = noise("independent").flatten(2), noise("equal_norm").flatten(2)
    assert torch.equal(shaped[:, 0], plain[:, 0])
    length = plain[:, :1].norm(dim=2).expand(5, 4)
    torch.testing.assert_close(shaped.norm(dim=2), length, rtol=1e-6, atol=0)
    torch.testing.assert_close(torch.cosine_similarity(shaped, plain, dim=2), torch.ones(5, 4), rtol=1e-6, atol=0)
    assert (plain.norm(dim=2)[:, 1:] / length[:, 1:] - 1).abs().max() > 0.1, "else there was nothing to rescale"


def test_antithetic_comes_in_mirrored_pairs() -> None:
    drawn = noise("antithetic")
    assert torch.equal(drawn[:, 1::2], -drawn[:, ::2])
    assert torch.equal(drawn[:, ::2], torch.randn(5, 2, *SHAPE, generator=seeded()))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("candidate", [0, 1, 3])
def test_each_candidate_alone_is_standard_normal(kind: CandidateNoise, candidate: int) -> None:
    """Means, covariances, and the spread of the squared length, which a fixed length of sqrt(D) would not have."""
    rows = 20000
    drawn = noise(kind, rows=rows)[:, candidate].flatten(1).double()
    assert drawn.mean(0).abs().max() < 4.5 / rows**0.5
    assert (torch.cov(drawn.T) - torch.eye(D, dtype=torch.float64)).abs().max() < 0.06
    squared = drawn.square().sum(1)
    assert squared.mean().item() == pytest.approx(D, abs=4 * (2 * D / rows) ** 0.5)
    assert squared.var().item() == pytest.approx(2 * D, rel=0.06)


@pytest.mark.parametrize("kind", KINDS)
def test_starts_are_independent_of_each_other(kind: CandidateNoise) -> None:
    squared = noise(kind, rows=4000, count=2).flatten(2).square().sum(2)
    between = torch.corrcoef(torch.stack([squared[:-1, 0], squared[1:, 0]]))[0, 1]
    within = torch.corrcoef(squared.T)[0, 1]
    assert abs(between) < 0.06
    assert abs(within - (0.0 if kind == "independent" else 1.0)) < 0.06


def test_an_odd_number_has_no_mirror_images() -> None:
    with pytest.raises(ValueError, match="antithetic noise comes in pairs, but there are 3 candidates"):
        noise("antithetic", count=3)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="noise = 'sobol' is unknown; write one of 'independent'"):
        noise("sobol")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_candidates_are_the_mean_plus_std_times_noise(kind: CandidateNoise) -> None:
    step = transition(5)
    drawn = step_candidates(step, count=4, generator=seeded(), noise=kind)
    assert torch.equal(drawn, step.mean.unsqueeze(1) + 0.5 * noise(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_candidates_that_parted_share_their_noise_s_shape(kind: CandidateNoise) -> None:
    """Rows 0 to 3 left one x_t, rows 4 to 7 the next: each walks on from where it is."""
    step = transition(20)
    drawn = step_candidates(step, count=4, generator=seeded(), noise=kind, parted=True)
    assert torch.equal(drawn, step.mean.view(5, 4, *SHAPE) + 0.5 * noise(kind))


class TestDrawnLogProb:
    def test_is_the_density_of_what_was_drawn(self) -> None:
        step = transition(3)
        drawn = step_candidates(step, count=2, generator=seeded()).flatten(0, 1)
        normal = torch.distributions.Normal(step.mean.double().repeat_interleave(2, 0), 0.5)
        expected = normal.log_prob(drawn.double()).sum((1, 2, 3))
        torch.testing.assert_close(drawn_log_prob(step, drawn), expected, rtol=1e-6, atol=1e-5)

    def test_is_minus_half_the_squared_length_of_the_noise_and_a_constant(self) -> None:
        step = transition(5)
        drawn = step_candidates(step, count=4, generator=seeded()).flatten(0, 1)
        rest = drawn_log_prob(step, drawn) + noise("independent").double().square().sum((2, 3, 4)).flatten() / 2
        torch.testing.assert_close(rest, rest[:1].expand_as(rest), rtol=0, atol=1e-4)

    def test_a_deterministic_step_has_none(self) -> None:
        step = transition(3, std=0.0)
        assert drawn_log_prob(step, step.mean).isnan().all()
