"""The few types that pass between the floors."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor

#: Class number of unlabelled or ignored pixels in a label map.
IGNORE_INDEX = 255


class Frame(NamedTuple):
    """Which plane of a file that holds several is meant: the slice of a volume, the frame of a DICOM or TIFF file.

    axis: ``x``, ``y`` or ``z``, the first, second or third axis of the voxel array of a volume as it is stored,
    across which the slices lie; ``l``, ``p`` or ``i``, an axis of the same array turned so that its axes run to the
    left, the back and the feet of the patient; ``f`` for the frames of a file without axes. number: from 0. time: from
    0, on the fourth axis of a volume that has one. As text, the cell ``frame`` of index.csv: ``z17``, ``z17t4``,
    ``f5``.
    """

    axis: Literal["x", "y", "z", "l", "p", "i", "f"]
    number: int
    time: int | None = None

    @property
    def across(self) -> int:
        """The axis of the array, 0 to 2, across which the slices lie; -1 for the frame of a film."""
        return {"x": 0, "l": 0, "y": 1, "p": 1, "z": 2, "i": 2}.get(self.axis, -1)

    @property
    def turned(self) -> bool:
        """Whether that array is the one turned to the patient."""
        return self.axis in ("l", "p", "i")

    def __str__(self) -> str:
        return f"{self.axis}{self.number}" + ("" if self.time is None else f"t{self.time}")

    @classmethod
    def parse(cls, text: str) -> Frame:
        """The frame that a text means; raises ValueError if it means none."""
        found = re.fullmatch(r"([xyzlpif])(\d{1,9})(?:t(\d{1,9}))?", text, re.ASCII)
        if found is None or (found[1] == "f" and found[3]):
            raise ValueError(f"frame {text!r}: an axis and a number such as z17, z17t4 or f5 are needed")
        return cls(cast(Any, found[1]), int(found[2]), None if found[3] is None else int(found[3]))


@dataclass(frozen=True, slots=True)
class Record:
    """One image of a data set and what is known of it.

    Paths are POSIX paths relative to the root of the data set; ``masks`` may hold several files whose union is the
    mask (with ``vote`` what most of them say: one file a rater), and is empty for an unlabelled image. ``group`` names
    the set of images that must stay on one side of a split (near-duplicates, slices of one patient). ``width`` and
    ``height`` are in pixels. ``spacing`` is the distance of two pixels of the original image in mm, from row to row
    and from column to column; None if not known. ``frame`` is the plane that is meant of an image and its masks where
    the files hold several, and ``slice_mm`` the distance from one plane of a volume to the next; else both are None.
    ``ignore`` is the value in the mask files of pixels that are not known; None where all are. ``mask_values`` are the
    rules by which the values of the mask files become class numbers (``mask_values.py``), empty for none. ``series`` is
    the first file of the DICOM series of which ``image`` is a slice, with a mask of its own; ``frame`` is then its
    place (axis ``z``), and the plane that is meant is all of ``image`` and ``masks``. Else it is empty.
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
    frame: Frame | None = None
    slice_mm: float | None = None
    vote: bool = False
    ignore: int | None = None
    series: str = ""
    mask_values: str = ""

    @property
    def may_ignore(self) -> bool:
        """Whether some values in the mask files are of pixels that are not known."""
        return self.ignore is not None or "ignore" in self.mask_values

    @property
    def labelled(self) -> bool:
        """Whether the record has a mask."""
        return bool(self.masks)

    @property
    def file(self) -> str:
        """What all planes of one volume or film share: the file, of a series its first one."""
        return self.series or self.image

    @property
    def volume(self) -> str | None:
        """Name of the volume that the record is a slice of, the same for all slices of it and for no other; None for
        an image of its own, which a frame of a film (axis ``f``) is too."""
        if self.frame is None or self.frame.axis == "f":
            return None
        return f"{self.file}:{self.frame.axis}" + ("" if self.frame.time is None else f"t{self.frame.time}")


@dataclass(frozen=True, slots=True)
class Batch:
    """What a training step gets: images and masks on one device, the numbers of the domains on it or on the CPU.

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
