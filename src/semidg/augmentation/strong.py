"""Strong augmentation of a batch, on its device: change of grey levels, speckle, blur, and CutMix.

Every draw comes from a CPU generator and every image has a draw of its own; the draws (``sample_*``) are apart from
the computations.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from semidg import ranks
from semidg.method_config import StrongConfig


class PhotometricParameters(NamedTuple):
    """Per image, (B,) each: contrast and gamma factors, brightness offset, standard deviation of the speckle and of
    the Gaussian blur in pixels; speckle: (B, 1, H, W) standard normal field."""

    contrast: Tensor
    brightness: Tensor
    gamma: Tensor
    noise: Tensor
    sigma: Tensor
    speckle: Tensor


def sample_photometric(images: Tensor, config: StrongConfig, generator: torch.Generator) -> PhotometricParameters:
    """Draw for a batch (B, C, H, W): each change acts on an image with probability 0.8 (speckle and blur 0.5)."""
    batch, _, height, width = images.shape
    batch *= ranks.world()
    strength = config.photometric

    def uniform(low: float, high: float, probability: float) -> Tensor:
        value = low + (high - low) * torch.rand(batch, generator=generator)
        return value * (torch.rand(batch, generator=generator) < probability)

    drawn = PhotometricParameters(
        contrast=(0.6 * strength * uniform(-1, 1, 0.8)).exp(),
        brightness=0.2 * strength * uniform(-1, 1, 0.8),
        gamma=(0.5 * strength * uniform(-1, 1, 0.8)).exp(),
        noise=0.3 * strength * uniform(0, 1, 0.5),
        sigma=1.5 * strength * uniform(0, 1, 0.5),
        speckle=torch.randn(batch, 1, height, width, generator=generator),
    )
    return PhotometricParameters(*(ranks.own(values) for values in drawn))


def apply_photometric(images: Tensor, parameters: PhotometricParameters) -> Tensor:
    """(B, C, H, W) in [0, 1] to the same shape and range.

    x <- clip(x)^gamma; x <- (x - mean) contrast + mean + brightness; x <- x (1 + noise * speckle); Gaussian blur.
    """
    device = images.device
    contrast, brightness, gamma, noise = (ranks.send(p, device)[:, None, None, None] for p in parameters[:4])
    x = (images.float().clamp(1e-6, 1).log() * gamma).exp()  # the power, in half its time
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    x = (x - mean) * contrast + mean + brightness
    x = x * (1 + noise * ranks.send(parameters.speckle, device))
    with torch.autocast(device.type, enabled=False):
        if device.type == "cpu":  # a blur takes as long there as all else; elsewhere sizes had better stay the same
            rows = torch.from_numpy(np.flatnonzero(parameters.sigma.numpy()))
            if len(rows):
                x[rows] = _blur(x[rows], parameters.sigma[rows])
        else:
            x = _blur(x, ranks.send(parameters.sigma, device))
    return x.clamp(0, 1).to(images.dtype)


def _blur(images: Tensor, sigma: Tensor, radius: int = 4) -> Tensor:
    """Gaussian blur with one standard deviation an image, separable; sigma 0 leaves the image as it is."""
    batch, channels, height, width = images.shape
    offsets = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma.clamp_min(1e-3)[:, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)[:, None]
    x = images.reshape(1, batch * channels, height, width)
    x = F.conv2d(F.pad(x, (radius, radius, 0, 0), "reflect"), kernel[:, :, None, :], groups=batch * channels)
    x = F.conv2d(F.pad(x, (0, 0, radius, radius), "reflect"), kernel[:, :, :, None], groups=batch * channels)
    return x.reshape(batch, channels, height, width)


class CutMixParameters(NamedTuple):
    """partner: (B,) row that gives the rectangle. inside: (B, H, W) bool, true in the rectangle (nowhere: no mix)."""

    partner: Tensor
    inside: Tensor


def sample_cutmix(
    batch: int, height: int, width: int, probability: float, generator: torch.Generator
) -> CutMixParameters:
    """Rectangles of 10 to 50 % of the area and aspect 1/2 to 2, wholly inside the image; partner: the next image."""
    area = 0.1 + 0.4 * torch.rand(batch, generator=generator)
    aspect = ((2 * torch.rand(batch, generator=generator) - 1) * 0.6931).exp()
    chosen = torch.rand(batch, generator=generator) < probability
    h = ((area * aspect).sqrt().clamp(max=1) * height).round()
    w = ((area / aspect).sqrt().clamp(max=1) * width).round()
    top = (torch.rand(batch, generator=generator) * (height - h + 1)).floor()
    left = (torch.rand(batch, generator=generator) * (width - w + 1)).floor()
    y, x = torch.arange(height)[None, :, None], torch.arange(width)[None, None, :]
    top, left, h, w = (v[:, None, None] for v in (top, left, h, w))
    inside = (y >= top) & (y < top + h) & (x >= left) & (x < left + w)
    return CutMixParameters(torch.roll(torch.arange(batch), 1), inside & chosen[:, None, None])


def apply_cutmix(values: Tensor, parameters: CutMixParameters) -> Tensor:
    """Paste the partner's rectangle: values (B, ..., H, W) of images, probabilities or labels, any dtype.

    The parameters are those of the whole batch of all ranks; a partner of another rank gets no gradient.
    """
    inside, partner = (ranks.send(ranks.own(p), values.device) for p in (parameters.inside, parameters.partner))
    shape = (inside.shape[0], *([1] * (values.dim() - 3)), *inside.shape[1:])
    return torch.where(inside.reshape(shape), ranks.gather(values)[partner], values)
