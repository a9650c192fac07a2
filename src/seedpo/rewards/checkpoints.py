"""Published weights of scorers: where they are, how they are read, and how they get into a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Sized
from fnmatch import fnmatchcase
from pathlib import Path

from huggingface_hub import snapshot_download
from torch import Tensor, nn

from seedpo.errors import DataError


def located(
    reward: str,
    place: str | None,
    *,
    repository: str | None,
    files: Sequence[str],
    optional: Sequence[str] = (),
    kind: str = "reward",
    usage: str | None = None,
) -> Path:
    """The folder with the published files of a scorer.

    Args:
        reward: its name, for errors.
        place: a local folder, or ``owner/name`` or ``owner/name@revision`` on the hub; `None` for ``repository``.
        repository: default place on the hub; `None` if there is none.
        files: names or patterns (``model*.safetensors``); each must match a file.
        optional: names or patterns of files that are downloaded if they exist.
        kind: what it is, for errors.
        usage: how a user names a folder, for errors; `None` for ``NAME@FOLDER``.

    Returns:
        The folder itself, or the hub's cache of those files.

    Raises:
        DataError: if the place does not exist, the download fails, or files are missing.
    """
    usage = usage or f"{reward}@FOLDER"
    source = place if place is not None else repository
    if source is None:
        raise DataError(f"{kind} {reward} has no default place; name a folder: {usage}")
    folder = Path(source)
    local = folder.is_dir()
    if not local:
        folder = _from_hub(f"{kind} {reward}", source, [*files, *optional], usage=usage)
    missing = [name for name in files if not any(folder.glob(name))]
    if missing:
        fix = "copy them there" if local else f"name a folder that has them: {usage}"
        raise DataError(f"{kind} {reward}: {source} lacks {', '.join(missing)}; {fix}")
    return folder


def fill(module: nn.Module, weights: Mapping[str, Tensor], *, origin: str | Path, ignored: Sequence[str] = ()) -> None:
    """Gives a network its weights, each in the type of the network's own tensor.

    Args:
        module: the network; one made on the device ``meta`` takes the very tensors, which saves time and memory.
        weights: by the names of ``module.state_dict()``.
        origin: where they are from, for errors.
        ignored: patterns (``*.position_ids``) of names that the network may lack.

    Raises:
        DataError: naming weights that are missing, of another shape, or not the network's.
    """
    expected = module.state_dict()
    missing = [name for name in expected if name not in weights]
    left = [name for name in weights if name not in expected]
    unexpected = [name for name in left if not any(fnmatchcase(name, pattern) for pattern in ignored)]
    misshapen = [
        f"{name} {tuple(weights[name].shape)} instead of {tuple(own.shape)}"
        for name, own in expected.items()
        if name in weights and weights[name].shape != own.shape
    ]
    problems = [
        f"{what} {some(names)}"
        for what, names in (("lacks", missing), ("has the wrong shape for", misshapen), ("also holds", unexpected))
        if names
    ]
    if problems:
        raise DataError(f"{origin} does not fit the network: it {'; it '.join(problems)}; is it the right checkpoint?")
    module.load_state_dict(
        {name: weights[name].to(own.dtype) for name, own in expected.items()},
        assign=any(own.is_meta for own in expected.values()),
    )


def some(names: Iterable[str]) -> str:
    """The first few of some names, and how many more there are."""
    listed = list(names)
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")


def _from_hub(subject: str, place: str, patterns: list[str], *, usage: str) -> Path:
    repository, _, revision = place.partition("@")
    fix = f"name a folder with its files ({usage}), or owner/name on the hub"
    if repository.count("/") != 1 or repository.startswith((".", "/", "~")):
        raise DataError(f"{subject}: folder {place} does not exist; {fix}")
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=patterns))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{subject}: folder {place} does not exist, and the download from the hub failed "
            f"({type(error).__name__}); check the network and the name, or {fix}"
        ) from error


def check_tokens(tokenizer: Sized, known: int, *, reward: str, needs: str) -> None:
    """Checks that a network knows every token of its tokenizer.

    Args:
        tokenizer: whose length counts its tokens, those that were added among them.
        known: tokens of the network.
        reward: its name.
        needs: the tokenizer that it should have.

    Raises:
        DataError: if it does not.
    """
    if len(tokenizer) > known:
        raise DataError(f"{reward}'s tokenizer has {len(tokenizer)} tokens but its network {known}; it needs {needs}")
