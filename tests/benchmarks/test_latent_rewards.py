from __future__ import annotations

import json

import pytest

from benchmarks.latent_rewards import CANDIDATES, PROMPTS, STEPS, main


def test_both_roll_outs_run_and_the_rows_are_those_that_are_saved(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--tiny", "--repetitions", "1", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    reference = 2 * PROMPTS * STEPS
    decoded, latent = figures["rows"].values()
    assert latent == 2 * PROMPTS * STEPS + reference
    assert decoded == 2 * PROMPTS * (1 + CANDIDATES * (STEPS - 1)) + reference
    assert figures["flops"]["previews, decoded"] > figures["flops"]["noisy latents"]
    assert main(["--tiny", "--repetitions", "1"]) == 0
    assert "times" in capsys.readouterr().out
