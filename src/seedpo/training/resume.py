"""What is checked before a run starts or is resumed: its folder, its settings, its checkpoint and its reference.

The reference of a preference loss is the untrained model. It is loaded anew at every start, so a model folder that
changed in between would move it without a trace.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from math import prod
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from seedpo.data.pairs.fingerprints import changes_between
from seedpo.data.settings import data_label
from seedpo.errors import RunFolderError
from seedpo.files import remove_leftovers
from seedpo.methods.presets import METHODS
from seedpo.processes import on_main_process
from seedpo.protocols import DataReader, Fingerprint, Trainable
from seedpo.rewards.named import server_versions
from seedpo.run_folders import AVERAGE, WEIGHTS, Manifest, RunFolder, read_metrics
from seedpo.settings import build_config
from seedpo.training.best_steps import has_stopped_improving
from seedpo.training.checkpoint import Checkpoints
from seedpo.training.metrics_log import truncate_metrics
from seedpo.training.run_folder import (
    clear_beginning,
    create_run_folder,
    is_beginning,
    require_fresh,
    require_same_settings,
    warn_of_new_versions,
    write_config,
)
from seedpo.training.settings import RunConfig, TrainingConfig

logger = logging.getLogger(__name__)


Resume = Literal["latest"] | None
"""Whether a run continues from its newest checkpoint, if it has one."""


def start_folder(
    out: Path | str, config: TrainingConfig, accelerator: Accelerator, *, resume: Resume
) -> tuple[RunFolder, Resume]:
    """The folder of a run, a new one or that of the run that is resumed; and whether there is one to resume.

    Where there is nothing to resume, a run that should be resumed begins anew, so that a scheduler may always ask for
    it: the folder is absent or empty, or a run was killed in it before its first checkpoint.

    Raises:
        RunFolderError: if a new run's folder is not empty, or what lies in it is no run.
    """

    def start() -> bool:
        folder = RunFolder(Path(out))
        if resume is not None and not is_beginning(folder):
            RunFolder.open(out)
            return True
        if resume is not None:
            clear_beginning(folder, config)
            logger.info("%s holds no checkpoint to resume: the run begins anew", folder.path)
        create_run_folder(out, config)
        return False

    resumed = on_main_process(accelerator, start)
    return RunFolder(Path(out)), resume if resumed else None


def prepare_folder(folder: RunFolder, config: TrainingConfig, *, resumed: bool) -> dict[str, Any] | None:
    """Checks a run folder and removes what a killed process left there.

    Returns:
        ``None`` if there is something to train; the last training metrics of a run that is finished already.

    Raises:
        RunFolderError: if the folder belongs to other settings, or to another run if none is resumed.
    """
    # Whether the number of processes is another one, so that other batches will do, its checkpoint says.
    require_same_settings(folder.read_config(type(config)), config, folder.path, other_batches=resumed)
    for place in (folder.path, folder.checkpoints, folder.samples):
        remove_leftovers(place)
    if not resumed:
        require_fresh(folder)
        write_config(folder, config)
        return None
    warn_of_new_versions(folder)
    step, lines = folder.finished_step(), read_metrics(folder.metrics)
    stopped_early = step is not None and isinstance(config, RunConfig) and has_stopped_improving(lines, config)
    if step != config.max_steps and not stopped_early:
        return None
    key = "max_steps" if step == config.max_steps else "early_stopping.patience"
    logger.warning("%s is finished at step %d; set %s to continue", folder.path, step, key)
    return next((line for line in reversed(lines) if line["kind"] == "train"), {})


def choose_checkpoint(
    checkpoints: Checkpoints,
    folder: RunFolder,
    config: TrainingConfig,
    *,
    processes: int,
    misfit: Callable[[Manifest], str | None],
    reference: str,
    inputs: Mapping[str, Fingerprint],
) -> Manifest:
    """The newest intact checkpoint; metrics after its step are removed.

    Args:
        checkpoints: of the run.
        folder: of the run.
        config: settings of the resumed run.
        processes: of the resumed run.
        misfit: why what a checkpoint holds cannot be dealt out over another number of processes; ``None`` if it can.
        reference: hash of the untrained weights as they were loaded now, see :func:`reference_hash`.
        inputs: fingerprints of the data as they are now, see :func:`input_fingerprints`.

    Raises:
        RunFolderError: if there is none, or it does not fit what is resumed.
    """
    manifest = checkpoints.newest_intact()
    where = checkpoints.path(manifest.step)
    before, other = build_config(type(config), manifest.config), manifest.processes != processes
    require_same_settings(before, config, where, other_batches=other)
    if manifest.reference != reference:
        raise RunFolderError(
            f"{where} was made from other base weights than those of `model` today, so its reference would move; "
            "put the model back as it was, or choose another --out to start anew"
        )
    _require_same_inputs(manifest, inputs, config, where)
    if other and (reason := misfit(manifest)) is not None:
        raise RunFolderError(
            f"{where} was written by {manifest.processes} processes, not {processes}, and {reason}; "
            f"resume with --processes {manifest.processes}"
        )
    if manifest.step > config.max_steps:
        raise RunFolderError(
            f"{where} is beyond max_steps = {config.max_steps}; set max_steps to {manifest.step} or more"
        )
    if other:
        _say_global_batch(before, config, processes=(manifest.processes, processes), where=where)
    checkpoints.prune()
    folder.finished.unlink(missing_ok=True)
    write_config(folder, config)
    truncate_metrics(folder.metrics, step=manifest.step)
    return manifest


def _say_global_batch(before: TrainingConfig, now: TrainingConfig, *, processes: tuple[int, int], where: Path) -> None:
    """Logs what another number of processes changes; a warning if the global batch is one of it."""
    factors = [
        (config.batch_size, config.gradient_accumulation_steps, count)
        for config, count in zip((before, now), processes, strict=True)
    ]
    (old, old_product), (new, new_product) = ((" x ".join(map(str, some)), prod(some)) for some in factors)
    counts = f"{where} goes on on {processes[1]} instead of {processes[0]} processes, with new random draws"
    if old_product == new_product:
        logger.info("%s; the global batch stays %d (%s -> %s)", counts, old_product, old, new)
        return
    steps, rest = divmod(old_product, now.batch_size * processes[1])
    way = "choose batch_size and gradient_accumulation_steps to keep it"
    if not rest:
        way = f"--set gradient_accumulation_steps={steps} keeps it"
    logger.warning(
        "%s; the global batch changes from %d (%s) to %d (%s): %s", counts, old_product, old, new_product, new, way
    )


def load_average(policy: Trainable, checkpoint: Path) -> dict[str, Tensor]:
    """The moving average of the weights that a checkpoint holds, as whole tensors by parameter name.

    The policy holds it afterwards: load its weights next.
    """
    policy.load(checkpoint / AVERAGE)
    return {name: value.detach().clone() for name, value in policy.trainable_parameters().items()}


def input_fingerprints(*parts: object) -> dict[str, Fingerprint]:
    """What tells the data that parts of a run read from others, by the configuration key that names them."""
    readers = [part for part in parts if isinstance(part, DataReader)]
    return {key: value for reader in readers for key, value in reader.fingerprints().items()}


REWARDS = "rewards"
"""Key of the fingerprint of rewards on servers, which holds the version of each."""


@dataclass(frozen=True, kw_only=True)
class ServedRewards:
    """The rewards of a run that servers compute, known by their versions.

    Attributes:
        config: of the run.
    """

    config: RunConfig

    def fingerprints(self) -> Mapping[str, Fingerprint]:
        """The version of each, as its server states it; nothing if there are none.

        Raises:
            RewardServerError: if a server does not answer.
        """
        config = self.config
        judge = None if METHODS[config.method].source.fixed_pairs or config.feedback.study else config.reward
        used = (judge, config.pairs.gap_reward, *config.weighting.second_opinion, *config.evaluation.rewards)
        versions = server_versions([name for name in used if name is not None], config.rewards)
        return {REWARDS: dict(versions)} if versions else {}


def _require_same_inputs(
    manifest: Manifest, inputs: Mapping[str, Fingerprint], config: TrainingConfig, where: Path
) -> None:
    """Checks that a run reads what it read before: neither its position nor its figures say anything of other data.

    Raises:
        RunFolderError: naming the key, and what changed.
    """
    for key in {**inputs, **manifest.inputs}:
        if changes := changes_between(manifest.inputs.get(key, {}), inputs.get(key, {})):
            if key == REWARDS:
                raise RunFolderError(
                    f"{where} was made with other versions of rewards on servers than they state today "
                    f"({', '.join(changes)}); serve the first versions again, or choose another --out to start anew"
                )
            value = reduce(getattr, key.split("."), config)
            name = data_label(value) if isinstance(value, str | tuple) else value
            raise RunFolderError(
                f"{where} was made with other {key} than {key} = {name} holds today "
                f"({', '.join(changes)}); put the data back as they were, or choose another --out to start anew"
            )


def load_weights(policy: Trainable, checkpoint: Path) -> None:
    """Reads the weights of a checkpoint into a policy that is not wrapped or sharded yet.

    Raises:
        RuntimeError: if the policy loaded them into other tensors than those it trains.
    """
    before = policy.trainable_parameters()
    policy.load(checkpoint / WEIGHTS)
    after = policy.trainable_parameters()
    if any(after.get(name) is not parameter for name, parameter in before.items()):
        raise RuntimeError("the policy's load replaced the tensors that are trained; it must fill them in place")


@torch.no_grad()
def reference_hash(network: nn.Module) -> str:
    """SHA-256 of a network's untrained weights, in hexadecimal digits.

    With an adapter these are the frozen weights, which stay the reference. Where everything is trained they are all
    weights, so compute this before the first step and before a checkpoint is loaded.
    """
    weights = dict(network.named_parameters())
    frozen = {name: value for name, value in weights.items() if not value.requires_grad}
    digest = hashlib.sha256()
    for name, value in (frozen or weights).items():
        digest.update(f"{name.replace('_orig_mod.', '')} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
