"""Weak augmentation of one sample: a flip, an affine map of image and mask alike, a mild change of grey level.

Drawing (``sample_parameters``) is apart from computing (``apply``); the caller's generator is seeded by run seed,
epoch and record, so that a resumed run draws the same.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as TF

from semidg.config import SpatialConfig
from semidg.types import IGNORE_INDEX


class SpatialParameters(NamedTuple):
    """flip: left-right. angle: degrees. shift: (x, y) as a part of the side. scale: zoom; then the change of grey."""

    flip: bool
    angle: float
    shift: tuple[float, float]
    scale: float
    contrast: float
    brightness: float


def sample_parameters(config: SpatialConfig, generator: torch.Generator) -> SpatialParameters:
    """One draw."""
    u = torch.rand(7, generator=generator, dtype=torch.float64).tolist()
    low, high = (math.log(v) for v in config.scale)
    signed = [2 * v - 1 for v in u]
    return SpatialParameters(
        flip=u[0] < config.flip,
        angle=config.rotate * signed[1],
        shift=(config.translate * signed[2], config.translate * signed[3]),
        scale=math.exp(low + (high - low) * u[4]),
        contrast=1 + config.contrast * signed[5],
        brightness=config.brightness * signed[6],
    )


def apply(image: Tensor, mask: Tensor, parameters: SpatialParameters) -> tuple[Tensor, Tensor]:
    """image: (C, H, W) uint8; mask: (H, W) uint8. Returns (C, H, W) float32 in [0, 1] and (H, W) int64.

    The image is interpolated bilinearly, black outside; the mask by the nearest pixel, ``IGNORE_INDEX`` outside.
    """
    x, y = image.float() / 255, mask[None]
    if parameters.flip:
        x, y = x.flip(-1), y.flip(-1)
    height, width = y.shape[-2:]
    shift = [parameters.shift[0] * width, parameters.shift[1] * height]
    where = {"angle": parameters.angle, "translate": shift, "scale": parameters.scale, "shear": [0.0, 0.0]}
    x = TF.affine_image(x, interpolation=InterpolationMode.BILINEAR, fill=[0.0], **where)
    y = TF.affine_mask(y, fill=IGNORE_INDEX, **where)
    mean = x.mean()
    x = ((x - mean) * parameters.contrast + mean + parameters.brightness).clamp(0, 1)
    return x, y[0].long()


def plain(image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The evaluation pipeline: no augmentation, the same types as ``apply``."""
    return image.float() / 255, mask.long()
