"""Making the embedded world's weights from a seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import CLIPTokenizer

from seedpo.errors import ConfigError
from seedpo.reward_runs import resolve_reward_config, train_reward
from seedpo.rewards.step_aware_clip import StepAwareCLIP
from seedpo.scenes.building.captions import build_captions_part
from seedpo.scenes.building.pipeline import build_autoencoder_part, build_denoiser_part, build_practice_part
from seedpo.training.files import remove_folder

PARTS = ("autoencoder", "practice", "denoiser", "captions", "scorer")


def build(out: Path, *, part: str = "all", seed: int = 0) -> None:
    """Trains one part or all of them, in order, into ``out/pipeline``, ``out/clip`` and ``out/scorer``.

    Args:
        out: folder for the weights.
        part: ``autoencoder``, ``practice``, ``denoiser``, ``captions``, ``scorer`` (each needs those before it) or
            ``all``.
        seed: seed of everything.

    Raises:
        ConfigError: if there is no such part.
    """
    if part not in (*PARTS, "all"):
        raise ConfigError(f"unknown part {part!r}; there are: {', '.join(PARTS)}, all")
    builders: dict[str, Callable[[], None]] = {
        "autoencoder": lambda: build_autoencoder_part(out / "pipeline", seed=seed),
        "practice": lambda: build_practice_part(out / "pipeline", seed=seed),
        "denoiser": lambda: build_denoiser_part(out / "pipeline", seed=seed),
        "captions": lambda: build_captions_part(out / "clip", seed=seed),
        "scorer": lambda: build_scorer(out, seed=seed),
    }
    for name in PARTS if part == "all" else (part,):
        builders[name]()


def build_scorer(out: Path, *, seed: int = 0, changes: Mapping[str, Any] | None = None, progress: bool = True) -> None:
    """What ``seedpo reward train`` makes by default of ``out/clip`` and ``out/pipeline``, in half precision.

    Args:
        out: folder with both; the scorer is written to ``out/scorer``, its run to ``out/scorer-run``.
        seed: seed of the run.
        changes: keys of the run that differ from the defaults.
        progress: whether to show progress bars.

    Raises:
        SeedpoError: whatever the user can mend, in one line.
    """
    run = out / "scorer-run"
    remove_folder(run)
    places = {"start": str(out / "clip"), "model": str(out / "pipeline"), "seed": seed}
    config = resolve_reward_config(changes={**places, **(changes or {})}, bfloat16=False)
    train_reward(config, run, progress=progress)
    trained = run / config.weights_folder
    StepAwareCLIP.from_pretrained(trained).half().save_pretrained(out / "scorer")
    CLIPTokenizer.from_pretrained(trained).save_pretrained(out / "scorer")
