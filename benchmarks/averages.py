"""An average as it labels in a step, its shallow convolutions folded anew, against the same average computed as it is.

Both are called in turn in one process, and the average is moved before each pair, as by a step of the optimiser.
"""

from __future__ import annotations

import torch

from benchmarks.figure import Figure, figure
from benchmarks.training import autocast, precisions, seconds
from semidg.config import NetworkConfig
from semidg.networks.ema import MovingAverage, make_teacher
from semidg.networks.factory import make_network
from semidg.networks.folding import Folded

_SIDE = 128


def figures(quick: bool) -> list[Figure]:
    """The ratio for the images of a step: 4 and 8 of one network, 16 of ``crosslight`` with their mirror images."""
    student = make_network(NetworkConfig(weights="none"), 3, 0).to(memory_format=torch.channels_last)
    teacher = make_teacher(student)
    average, folded = MovingAverage(teacher, student), Folded(teacher)
    found = []
    for precision in precisions():
        for count in (2,) if quick else (4, 8, 16):
            images = torch.rand(count, 3, _SIDE, _SIDE).contiguous(memory_format=torch.channels_last)
            ratios = []
            with torch.no_grad(), autocast(precision):
                for step in range(2 if quick else 41):
                    average.move(0.99, 1000)
                    plain = seconds(lambda images=images: teacher(images))
                    ratio = seconds(lambda images=images: folded(images)) / plain
                    if step:  # the first pair warms up
                        ratios.append(ratio)
            about = "bf16" if precision == "bf16" else "32-bit"
            found.append(figure(f"folded / plain average, {about}, {count} images", ratios))
    return found
