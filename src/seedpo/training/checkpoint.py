"""Checkpoints: complete or absent, verified when they are read, older ones kept until the new one is safe.

A checkpoint is written into a folder beside its place, flushed, and renamed. It holds::

    policy/             what the policy's own ``save`` writes
    average/            the same of the moving average of the weights, with `ema_decay`
    reference/          the same of the reference, where it moves
    optimizer.*         the optimiser's state by parameter name (and the gradient scaler's)
    rank-<i>.*          random states and the source's state of process i
    checkpoint.json     the manifest: position, configuration, SHA-256 of every file above
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from accelerate import Accelerator

from seedpo.errors import RunFolderError
from seedpo.files import aside_of, files_below, publish_folder, remove_folder, sha256, writing
from seedpo.processes import on_every_process, on_main_process
from seedpo.protocols import EarlierProcesses
from seedpo.run_folders import MANIFEST, DamagedCheckpoint, Manifest, RunFolder, manifest_digest, read_manifest
from seedpo.training.codec import load_tree

logger = logging.getLogger(__name__)


def process_file(folder: Path, rank: int) -> Path:
    """What a checkpoint holds of one process, without the ending of its files."""
    return folder / f"rank-{rank}"


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Adds the hashes of all files in the folder and writes the manifest, with its own hash."""
    files = {str(path.relative_to(folder)): sha256(path) for path in files_below(folder)}
    content = asdict(replace(manifest, files=files))
    text = json.dumps({"manifest": content, "sha256": manifest_digest(content)}, indent=2)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run.

    Attributes:
        run: the folder of the run.
        limit: how many are kept.
    """

    run: RunFolder
    limit: int

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step lies."""
        return self.run.checkpoint(step)

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, ascending."""
        return self.run.checkpoint_steps()

    def earlier_processes(self, manifest: Manifest) -> EarlierProcesses:
        """Where the sources of the processes that wrote a checkpoint stopped."""
        folder = self.path(manifest.step)
        return EarlierProcesses(
            states=[load_tree(process_file(folder, rank))["source"] for rank in range(manifest.processes)],
            batch_size=int(manifest.config["batch_size"]),
            batches=int(manifest.config["gradient_accumulation_steps"]),
        )

    def describe_latest(self) -> str:
        """A phrase for error messages."""
        steps = self.steps()
        return f"the last checkpoint is {self.path(steps[-1])}" if steps else "no checkpoint was written yet"

    def newest_intact(self) -> Manifest:
        """The newest checkpoint whose files are what was written.

        Damaged ones that are newer are reported and put aside as ``damaged-checkpoint-<step>``, so that they neither
        stand in the way of the new ones nor count as kept.

        Raises:
            RunFolderError: if there is none.
        """
        damaged: dict[int, DamagedCheckpoint] = {}
        for step in reversed(self.steps()):
            try:
                manifest = read_manifest(self.path(step))
            except DamagedCheckpoint as error:
                damaged[step] = error
                continue
            self._put_aside(damaged, manifest)
            return manifest
        if damaged:
            problems = "; ".join(str(error) for error in damaged.values())
            raise RunFolderError(f"no checkpoint in {self.run.checkpoints} is intact: {problems}; choose another --out")
        raise RunFolderError(
            f"{self.run.checkpoints} holds no checkpoint to resume (see checkpoint_every); "
            "delete the run folder or choose another --out, and start without --resume"
        )

    def _put_aside(self, damaged: dict[int, DamagedCheckpoint], used: Manifest) -> None:
        for step, error in damaged.items():
            target = self.run.checkpoints / f"damaged-{self.path(step).name}"
            logger.warning(
                "%s; the run continues from %s (the damaged one is now %s)", error, self.path(used.step), target
            )
            remove_folder(target)
            self.path(step).replace(target)

    def prune(self) -> None:
        """Removes the oldest checkpoints beyond the limit."""
        for step in self.steps()[: -self.limit]:
            remove_folder(self.path(step))

    def write(
        self,
        manifest: Manifest,
        *,
        accelerator: Accelerator,
        write_shared: Callable[[Path], None],
        write_own: Callable[[Path], None],
    ) -> None:
        """Writes one checkpoint, together with all processes, then removes those beyond the limit.

        Args:
            manifest: position and configuration; its hashes are filled in here.
            accelerator: of this process.
            write_shared: writes what all processes have in common; runs on the first process.
            write_own: writes what only this process has.

        Raises:
            RunFolderError: if the disk is full or cannot be written; the checkpoints before are untouched.
        """
        target = self.path(manifest.step)
        aside = aside_of(target)
        what = f"the checkpoint of step {manifest.step}"
        fix = f"{self.describe_latest()}; continue with --resume latest"

        def begin() -> None:
            with writing(what, self.run.checkpoints, fix=fix):
                remove_folder(aside)
                aside.mkdir(parents=True)

        def write_parts() -> None:
            with writing(what, self.run.checkpoints, fix=fix):
                if accelerator.is_main_process:
                    write_shared(aside)
                write_own(aside)

        def publish() -> None:
            with writing(what, self.run.checkpoints, fix=fix):
                write_manifest(manifest, aside)
                publish_folder(aside, target)
                self.prune()

        try:
            on_main_process(accelerator, begin)
            on_every_process(accelerator, write_parts)
            on_main_process(accelerator, publish)
        except BaseException:
            if accelerator.is_main_process:
                shutil.rmtree(aside, ignore_errors=True)
            raise
