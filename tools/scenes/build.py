"""Making the embedded world's weights from a seed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from transformers import CLIPModel, CLIPTokenizer

from seedpo.errors import ConfigError
from seedpo.files import remove_folder
from seedpo.rewards.step_aware_clip import StepAwareCLIP
from seedpo.training.configuration import resolve_reward_config
from seedpo.training.reward_run import train_reward
from tools.scenes.captions import build_captions_part
from tools.scenes.few_labels import build_few_labels
from tools.scenes.pipeline import build_autoencoder_part, build_denoiser_part, build_flow_part, build_practice_part

PARTS = ("autoencoder", "practice", "denoiser", "flow", "captions", "scorer", "plain", "few", "latent")


def build(out: Path, *, part: str = "all", seed: int = 0) -> None:
    """Trains one part or all of them, in order, into folders of ``out``.

    Args:
        out: folder for the weights: ``pipeline``, ``flow``, ``clip``, ``scorer``, ``plain`` and ``latent``, and
            ``few.safetensors``.
        part: ``autoencoder``, ``practice``, ``denoiser``, ``flow``, ``captions``, ``scorer``, ``plain``, ``few``,
            ``latent`` or ``all``. Each needs those before it; but ``flow`` needs the ``autoencoder`` only, the others
            no ``flow``, ``plain`` no ``scorer``, ``few`` the ``captions`` only, and ``latent`` the pipeline only.
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
        "flow": lambda: build_flow_part(out / "flow", out / "pipeline", seed=seed),
        "captions": lambda: build_captions_part(out / "clip", seed=seed),
        "scorer": lambda: build_scorer(out, seed=seed),
        "plain": lambda: build_scorer(out, step_aware=False, seed=seed),
        "few": lambda: build_few_labels(out),
        "latent": lambda: build_latent_scorer(out, seed=seed),
    }
    for name in PARTS if part == "all" else (part,):
        builders[name]()


def build_scorer(
    out: Path,
    *,
    step_aware: bool = True,
    seed: int = 0,
    changes: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> None:
    """What ``seedpo reward train`` makes by default of ``out/clip`` and ``out/pipeline``, in half precision.

    Args:
        out: folder with both; the scorer is written to ``out/scorer`` (or ``out/plain``), its run to ``<that>-run``.
        step_aware: whether it is trained on previews too; if not, on finished images alone.
        seed: seed of the run.
        changes: keys of the run that differ from the defaults.
        progress: whether to show progress bars.

    Raises:
        SeedpoError: whatever the user can mend, in one line.
    """
    name = "scorer" if step_aware else "plain"
    run = out / f"{name}-run"
    remove_folder(run)
    model = str(out / "pipeline") if step_aware else None
    places = {"start": str(out / "clip"), "model": model, "seed": seed}
    config = resolve_reward_config(changes={**places, **(changes or {})}, bfloat16=False)
    train_reward(config, run, progress=progress)
    trained = run / config.weights_folder
    kind = StepAwareCLIP if step_aware else CLIPModel
    kind.from_pretrained(trained).half().save_pretrained(out / name)
    CLIPTokenizer.from_pretrained(trained).save_pretrained(out / name)


def build_latent_scorer(
    out: Path, *, seed: int = 0, changes: Mapping[str, Any] | None = None, progress: bool = True
) -> None:
    """What ``seedpo reward train --set latent=true`` makes of ``out/pipeline`` in 400 updates, in half precision.

    Args:
        out: folder with it; the model is written to ``out/latent``, without the autoencoder's weights, and its run to
            ``out/latent-run``.
        seed: seed of the run.
        changes: keys of the run that differ from the defaults.
        progress: whether to show progress bars.

    Raises:
        SeedpoError: whatever the user can mend, in one line.
    """
    run = out / "latent-run"
    remove_folder(run)
    places = {"model": str(out / "pipeline"), "seed": seed, "latent": True}
    length = {"max_steps": 400, "optimizer": {"warmup_steps": 40}}
    config = resolve_reward_config(changes={**places, **length, **(changes or {})}, bfloat16=False)
    train_reward(config, run, progress=progress)
    for file in sorted(path for path in (run / config.weights_folder).rglob("*") if path.is_file()):
        copy = out / "latent" / file.relative_to(run / config.weights_folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix != ".safetensors":
            shutil.copyfile(file, copy)
        elif file.parent.name != "vae":
            save_file({name: value.half() for name, value in load_file(file).items()}, copy)
