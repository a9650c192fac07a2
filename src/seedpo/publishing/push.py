"""A run's results on the hub: trained weights, card, settings and sample grid; nothing else leaves the machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from huggingface_hub import CommitOperationAdd, HfApi

from seedpo.errors import SeedpoError
from seedpo.models.names import repository_name
from seedpo.publishing.card import CARD, GRID, write_card
from seedpo.publishing.weights import network_part, trained_weights


class HubClient(Protocol):
    """What is called of ``huggingface_hub.HfApi``."""

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> Any:
        """Makes a repository, unless it is there."""

    def create_commit(self, repo_id: str, operations: list[CommitOperationAdd], *, commit_message: str) -> Any:
        """Adds files in one commit."""


def published_files(run: Path) -> dict[str, Path]:
    """What is uploaded, by its path in the repository.

    Raises:
        RunFolderError: if the run did not finish.
    """
    config, weights = trained_weights(run)
    inside = "" if config.adapter == "lora" else f"{network_part(weights)}/"
    files = {inside + path.name: path for path in sorted(weights.iterdir()) if path.is_file()}
    files["config.yaml"] = run / "config.yaml"
    files |= {name: run / name for name in (CARD, GRID) if (run / name).is_file()}
    return files


def push_run(
    run: Path,
    repository: str,
    *,
    private: bool = True,
    license: str | None = None,
    base_model: str | None = None,
    client: HubClient | None = None,
) -> str:
    """Uploads a finished run in one commit.

    A card that is there already, and may have been edited, is uploaded as it is; otherwise one is written.

    Args:
        run: the run folder.
        repository: ``owner/name``; made if it does not exist.
        private: whether a repository that is made is private; one that exists stays as it is.
        license: for the card; see :func:`seedpo.publishing.card.write_card`.
        base_model: for the card.
        client: what talks to the hub; ``None`` for huggingface_hub with the saved login.

    Returns:
        The repository's address.

    Raises:
        RunFolderError: if the run did not finish.
        SeedpoError: if the hub refuses or cannot be reached; the run is as it was.
    """
    repository_name(repository)
    trained_weights(run)
    if not (run / CARD).is_file():
        write_card(run, repository=repository, base_model=base_model, license=license)
    files = published_files(run)
    api: HubClient = HfApi() if client is None else client
    operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in files.items()]
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        api.create_commit(repository, operations, commit_message=f"Results of {run.resolve().name}")
    except Exception as error:  # the client passes on errors of its HTTP library, which have no base of their own
        raise SeedpoError(
            f"{run} could not be uploaded to {repository} ({' '.join(str(error).split())}); the run is as it was: "
            f"log in with `hf auth login`, then `seedpo push {run} {repository}`"
        ) from error
    return f"https://huggingface.co/{repository}"
