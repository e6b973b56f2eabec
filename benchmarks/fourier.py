"""The Fourier view of a batch against one forward of the encoder on the images it changes.

The transform is that of a step: partners and shares drawn, all images of the batch transformed, the unlabelled ones
changed. The forward is that of training, which keeps what the backward needs, in 32-bit.
"""

from __future__ import annotations

import statistics
from pathlib import Path

import torch

from benchmarks.figure import Figure, alternate, figure
from benchmarks.training import configure, new_method
from semidg.augmentation import fourier
from semidg.config import ExperimentConfig
from semidg.method_config import FourierConfig
from semidg.types import Progress


def measure(config: ExperimentConfig, size: int, rounds: int) -> Figure:
    """Of ``size`` labelled and as many unlabelled images."""
    encoder = new_method(config).networks[0].encoder
    pool = torch.rand(2 * size, config.data.channels, config.data.size, config.data.size)
    pool = pool.contiguous(memory_format=torch.channels_last)
    domains, rows, settings = torch.arange(2 * size) % 4, torch.arange(size), FourierConfig()

    def transform() -> None:
        drawn = fourier.sample_parameters(domains, rows, settings, Progress(0, 1).generator())
        fourier.fourier_view(pool, rows, drawn, settings)

    ratios, ours, other = alternate(transform, lambda: encoder(pool[:size]), rounds)
    details = {"transform, ms": 1000 * statistics.median(ours), "forward, ms": 1000 * statistics.median(other)}
    return figure(f"transform / encoder, {size} + {size} images", ratios, target=0.05, details=details)


def figures(quick: bool) -> list[Figure]:
    """For batches of 8 + 8 and, as in the preset, of 4 + 4 images."""
    config = configure(Path(), "epl", quick)
    return [measure(config, size, 3 if quick else 31) for size in ((2,) if quick else (8, 4))]
