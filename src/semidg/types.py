"""The few types that pass between the floors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

#: Grey level of unlabelled or ignored pixels in a label tensor.
IGNORE_INDEX = 255


@dataclass(frozen=True, slots=True)
class Record:
    """One image of a data set and what is known of it.

    Paths are POSIX paths relative to the root of the data set; ``masks`` may hold several files whose union is the
    mask, and is empty for an unlabelled image. ``group`` names the set of images that must stay on one side of a
    split (near-duplicates, slices of one patient). ``width`` and ``height`` are in pixels. ``spacing`` is the distance
    of two pixels of the original image in mm, from row to row and from column to column; None if not known.
    """

    id: str
    image: str
    masks: tuple[str, ...]
    domain: str
    class_name: str
    group: str
    width: int
    height: int
    spacing: tuple[float, float] | None = None

    @property
    def labelled(self) -> bool:
        """Whether the record has a mask."""
        return bool(self.masks)


class Sample(NamedTuple):
    """One image as the networks see it.

    image: (C, H, W) float32 in [0, 1]. mask: (H, W) int64 class numbers, all ``IGNORE_INDEX`` if unlabelled.
    """

    image: Tensor
    mask: Tensor
    id: str


@dataclass(frozen=True, slots=True)
class Batch:
    """What a training step gets, all tensors on one device.

    labelled: (B_l, C, H, W) in [0, 1]; masks: (B_l, H, W) int64; unlabelled: (B_u, C, H, W) in [0, 1], B_u may be 0.
    ``labelled_domains`` and ``unlabelled_domains`` hold one domain number an image, (B_l,) and (B_u,) int64: the
    Fourier view takes its partner from another domain where there is one.
    """

    labelled: Tensor
    masks: Tensor
    unlabelled: Tensor
    labelled_domains: Tensor
    unlabelled_domains: Tensor
    labelled_ids: tuple[str, ...] = ()
    unlabelled_ids: tuple[str, ...] = ()

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The batch with every tensor changed (moved to a device, pinned)."""
        tensors: dict[str, Any] = {
            f.name: change(v) for f in fields(self) if isinstance(v := getattr(self, f.name), Tensor)
        }
        return replace(self, **tensors)

    def pin_memory(self) -> Batch:
        """Page-locked copies, called by a data loader that feeds a GPU."""
        return self.map(lambda tensor: tensor.pin_memory())


@dataclass(frozen=True, slots=True)
class Progress:
    """Where training stands; schedules are pure functions of it, and so is every random draw.

    step: number of optimiser steps already done, from 0. total: number of steps of the whole run. seed: of the run.
    """

    step: int
    total: int
    seed: int = 0
    stream: int = field(default=0)

    @property
    def fraction(self) -> float:
        """Part of the training already done, in [0, 1]."""
        return min(1.0, self.step / max(1, self.total))

    def generator(self) -> torch.Generator:
        """A CPU generator that depends on seed, step and stream only, so that a resumed run draws the same."""
        seed = (self.seed * 1_000_003 + self.step) * 64 + self.stream
        return torch.Generator().manual_seed(seed % (2**63 - 1))
