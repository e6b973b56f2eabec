"""Fit a trained model to the looks of a hospital's images, without their masks and without training."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from semidg.errors import RunError
from semidg.experiment.bundle import Bundle
from semidg.networks.adaptation import adapt_batch_norms, share_of

#: Images at once.
BATCH = 16


def require_plain(bundle: Bundle, path: Path) -> None:
    """Raise RunError, which names the file, for a model that was adapted before or has no BatchNorm."""
    if "adapted" in bundle.about:
        raise RunError(f"{path}: was adapted before; give the run folder or the model it was made from")
    if not any(isinstance(module, nn.BatchNorm2d) for module in bundle.ensemble.modules()):
        raise RunError(
            f"{path}: its networks ({bundle.network.encoder}) have no BatchNorm, whose statistics adapt mixes"
        )


def adapt_bundle(bundle: Bundle, images: npt.NDArray[np.uint8], device: torch.device) -> Bundle:
    """A copy of a model with the BatchNorm statistics of its training and those of ``images``, (n, S, S, C) at the size
    of the networks, mixed (``networks.adaptation``).

    ``about["adapted"]`` says to how many images, the share of their statistics, and which they were, as checksums
    (``known_images``). Its calibration stays that of the training.
    """
    share = share_of(len(images))
    ensemble = deepcopy(bundle.ensemble).to(device)
    x = torch.from_numpy(images).permute(0, 3, 1, 2)
    pieces = x.tensor_split(-(-len(x) // BATCH))  # of nearly one size: a last one of one image would say little
    batches = [(piece.to(device).float() / 255).contiguous(memory_format=torch.channels_last) for piece in pieces]
    for network in ensemble.networks:
        adapt_batch_norms(network, batches, share)
    adapted = {"images": len(images), "share": round(share, 4), "crc32": sorted(map(_crc32, images))}
    return replace(bundle, ensemble=ensemble.cpu(), about={**bundle.about, "adapted": adapted})


def known_images(adapted: Mapping[str, Any], images: Iterable[npt.NDArray[np.uint8]]) -> int:
    """How many of ``images``, (S, S, C) at the size of the networks, are among those a model was adapted to; adapted:
    its ``about["adapted"]``."""
    known = frozenset(adapted["crc32"])
    return sum(_crc32(image) in known for image in images)


def _crc32(image: npt.NDArray[np.uint8]) -> int:
    return zlib.crc32(image.tobytes())
