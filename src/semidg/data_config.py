"""Configuration of the data: which data set, how it is read, how it is divided."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from semidg.mask_values import parse_mask_values
from semidg.method_config import Fraction, Model

LayoutName = Literal["auto", "busi", "folders", "csv", "nnunet", "scgm", "mms"]


def _known_domains(domains: str) -> str:
    if not re.fullmatch(r"layout|styles:([2-9]|[1-9]\d)", domains):
        raise ValueError("must be layout, or styles:K with a number K of 2 to 99")
    return domains


class SplitConfig(Model):
    """How the data set is divided; see docs/reference/splits.md."""

    protocol: Literal["grouped", "random", "published"] = "grouped"
    """grouped: near-duplicates stay on one side. random: image by image (leaks twins). published: random, without
    a validation part: the best checkpoint is chosen on the test part, and masks are scored resized, as published."""
    validation: Fraction = 0.1
    """Part of the images of the source domains used to choose settings and checkpoints."""
    test: Fraction = 0.2
    """Part of the images of the source domains kept for the test; ignored where ``target`` is set."""
    target: str | None = None
    """A whole domain held out as test part: never seen in training, labelled or not."""
    reserve: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Part of the images of ``target`` that is not scored either, so that an oracle can be trained on it."""
    oracle: bool = False
    """True: train on the reserved images of ``target`` in place of the other domains, and score the rest of it: what
    labels of the target itself would give, to stand beside leave-one-domain-out. No bound: augmentation can pass it."""
    seed: int = 0
    """Seed of the division into training, validation and test part (not of the labelled draw)."""
    similarity: Fraction = 0.95
    """Normalised cross-correlation on 64 x 64 grey above which two images are near-duplicates."""
    lists: Path | None = None
    """A folder of split lists to use as they are (``semidg split`` writes one) in place of a new draw."""
    exclude: Path | None = None
    """A table of images to leave out: issues.csv of ``semidg audit`` with marks in its column ``exclude``."""


class DataConfig(Model):
    """Which data set, and how its images reach the networks."""

    root: Path | None = None
    """Root folder of the data set, or a table of its images, NAME.csv."""
    more_roots: tuple[Path, ...] = ()
    """Further data sets used together with ``root``; each of all these roots is a domain."""
    layout: LayoutName = "auto"
    """auto recognises the layout; busi: benign/malignant/normal; folders: DOMAIN/images + DOMAIN/masks; csv: a table;
    nnunet: imagesTr + labelsTr + dataset.json; scgm, mms: the challenges' folders as downloaded."""
    images: str | None = None
    """In place of a layout: pattern of the images, such as ``original/*``: paths below ``root`` with the wildcards of
    a shell, ``**/`` for any folders, ``{domain}`` and ``{class}`` where these stand in the path."""
    masks: str | None = None
    """Pattern of their masks, such as ``GT/*_mask``: the mask of an image is where its wildcards stand for the same
    text. More of them at the end: several masks of one image. Without it all images are unlabelled."""
    groups: str | None = None
    """Regular expression with one group, which finds the patient in the path of an image: images of one patient stay
    on one side of a split, as near-duplicates do. A file groups.csv, or a column group of a table, says it too."""
    slice_axis: Literal["auto", "x", "y", "z"] = "auto"
    """Axis of the stored voxels across which the slices of a volume lie; auto: that of the largest spacing."""
    orientation: Literal["stored", "patient"] = "stored"
    """stored: slices of a volume as the file stores them. patient: turned by its affine, in steps of 90 degrees,
    so that axes run to the left, the back and the feet, and files stored in several ways look alike; slice_axis is then
    left-right (x), front-back (y) or head-feet (z). Predicted masks fit their file in both."""
    all_times: bool = False
    """M&Ms: also use the times without masks, as unlabelled images."""
    size: Annotated[int, Field(ge=16)] = 128
    """Side in pixels of the square the networks see; masks are scored at the original size."""
    channels: Literal[1, 3] = 3
    """Channels the images are read with: 1 (grey) or 3 (RGB)."""
    domains: Annotated[str, AfterValidator(_known_domains)] = "layout"
    """layout: as the folders say. styles:K: K acquisition styles derived from the looks of the images, named style-1
    (the largest) to style-K, for data that do not name scanners: a stated proxy, no scanner."""
    include_normal: bool = False
    """BUSI: also use the normal class (no lesion)."""
    ignore_label: int | None = Field(default=None, ge=-32768, le=65535)
    """Value in the mask files of pixels that are not known: they are in no loss and in no metric."""
    mask_values: str | None = None
    """What the values of the mask files mean, where they are not 0 and one other, or class numbers: rules VALUE:CLASS,
    LOW-HIGH:CLASS, #rrggbb:CLASS and *:CLASS (all others), divided by commas, such as ``0:2,128:1,255:0``; CLASS may be
    ``ignore``."""
    balance: Literal["none", "flip"] = "none"
    """flip: training images of every class but the largest (BUSI: malignant) are also used flipped left-right."""
    cache: Path | None = None
    """Folder of the decoded-image cache; default: semidg under the user's cache folder."""
    split: SplitConfig = SplitConfig()

    @field_validator("mask_values", mode="before")
    @classmethod
    def _rules(cls, text: object) -> object:
        if isinstance(text, str):
            parse_mask_values(text)
        elif text is not None:
            raise ValueError("write the rules in quotes; without them YAML reads 255:1 as a number")
        return text

    @field_validator("groups")
    @classmethod
    def _one_group(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                groups = re.compile(pattern).groups
            except (re.error, RecursionError, OverflowError) as error:
                raise ValueError(f"not a regular expression ({error})") from error
            if groups != 1:
                raise ValueError(f"needs exactly one group in parentheses, has {groups}; (?:...) is none")
        return pattern

    @model_validator(mode="after")
    def _consistent(self) -> DataConfig:
        if self.masks is not None and self.images is None:
            raise ValueError("data.masks needs data.images, the pattern of the images")
        if self.images is not None and self.more_roots:
            raise ValueError(
                "data.images is of one root, not of data.more_roots too; let `semidg index --images` write a table "
                "into each, and give the tables as roots"
            )
        if self.mask_values is not None and self.ignore_label is not None:
            value = self.ignore_label
            raise ValueError(f"data.ignore_label beside data.mask_values; write {value}:ignore into data.mask_values")
        return self
