"""A training step against the bare forward and backward of its networks on the same number of images.

The step is that of the training loop, with the loop: views, losses, clipping, optimiser, averages. The bare side does
what no implementation of the method can leave out: one forward and backward of each student on the images it learns
from, and one forward without gradient of each average on the images it labels. Both sides run in one process in turn.
The stricter ratio leaves the averages out of the bare side.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from benchmarks.figure import Figure, figure
from benchmarks.training import (
    autocast,
    configure,
    first_batch,
    new_method,
    over_neighbours,
    precisions,
    repeated,
    seconds,
    train,
    write_data,
)
from semidg.config import ExperimentConfig
from semidg.methods.base import Method

METHODS = ("supervised", "epl", "dual_level", "crosslight")
TARGET = 1.10


def images_of(method: str, labelled: int, unlabelled: int) -> tuple[int, int]:
    """How many images a step sends through each student with a gradient, and through each average without one."""
    return {
        "supervised": (labelled, 0),
        "epl": (labelled + 2 * unlabelled, unlabelled),  # X and Z; the plain X
        "dual_level": (labelled + 2 * unlabelled, unlabelled),
        "crosslight": (labelled + unlabelled, 2 * unlabelled),  # Z; X and its mirror image
    }[method]


class Bare:
    """Forward and backward of the networks of a method, and nothing else."""

    def __init__(self, method: Method, images: tuple[int, int], side: int, channels: int, precision: str) -> None:
        """images: those of each student, those of each average; of ``side`` x ``side`` pixels."""
        self.method, self.precision = method, precision
        shapes = ((count, channels, side, side) for count in images)
        self.learnt, self.labelled = (torch.rand(s).contiguous(memory_format=torch.channels_last) for s in shapes)

    def students(self) -> None:
        """One forward each, one backward."""
        with autocast(self.precision):
            total = torch.stack([n(self.learnt).logits.float().mean() for n in self.method.networks]).sum()
        total.backward()
        self.method.zero_grad()

    def averages(self) -> None:
        """One forward each, if they have anything to label."""
        if len(self.labelled) and self.method.teachers is not None:
            with torch.no_grad(), autocast(self.precision):
                for teacher in self.method.teachers:
                    teacher(self.labelled)


def measure(config: ExperimentConfig, name: str, rounds: int, target: float | None) -> list[Figure]:
    """Both ratios of one configuration; target: of the first."""
    trainer = config.trainer
    batch = trainer.batch_labelled
    images = images_of(config.method.name, batch, trainer.batch_unlabelled)
    bare = Bare(new_method(config), images, config.data.size, config.data.channels, trainer.precision)
    students: list[float] = []
    both: list[float] = []

    def between() -> None:
        students.append(seconds(bare.students))
        both.append(students[-1] + seconds(bare.averages))

    bare.students()
    ours = train(config, repeated(first_batch(config), rounds + 1), between)
    details = {"images of a student": images[0], "images of an average": images[1]}
    return [
        figure(f"{name}: step / its passes", over_neighbours(ours, both), target=target, details=details),
        figure(f"{name}: step / students' passes", over_neighbours(ours, students), details=details),
        figure(f"{name}: ms a step", [1000 * s for s in ours[1:]]),
    ]


def figures(quick: bool) -> list[Figure]:
    """Of all methods with batches of 8 and, as in the preset, of 4 images of each kind, in 32-bit and, where
    the processor has it, bf16."""
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder, quick)
        for size in (2,) if quick else (8, 4):
            for precision in precisions():
                for method in METHODS[::3] if quick else METHODS:
                    batch = {"batch_labelled": size, "batch_unlabelled": size, "precision": precision}
                    config = configure(folder, method, quick, **batch)
                    kinds = f"{size}" if method == "supervised" else f"{size} + {size}"
                    about = f"{method}, {precision if precision == 'bf16' else '32-bit'}, {kinds} images"
                    found += measure(config, about, 2 if quick else 15, TARGET if size == 8 else None)
    return found
