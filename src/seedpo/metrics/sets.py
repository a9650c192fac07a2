"""Two sets of features that are compared."""

from __future__ import annotations

from torch import Tensor

from seedpo.errors import DataError


def checked_pair(images: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Features (N, D) and (M, D) as float64.

    Raises:
        DataError: if a set is empty, or they are not features of one kind.
    """
    for what, features in (("images", images), ("reference set", reference)):
        if features.dim() != 2 or len(features) == 0:
            raise DataError(f"features of the {what} have the shape {tuple(features.shape)}; pass (N, D) with N >= 1")
    if images.shape[1] != reference.shape[1]:
        raise DataError(
            f"features of the images are {images.shape[1]} wide, those of the reference set {reference.shape[1]}; "
            "make both with the same network"
        )
    return images.double(), reference.double()
