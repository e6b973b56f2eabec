"""The look at one record: its files are decoded once, and all that later checks and the page need is kept small."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from semidg.augmentation.fourier import amplitude_window
from semidg.data import voxels
from semidg.data.duplicates import thumbnail
from semidg.data.images import is_volume_name, resize_image, resize_mask
from semidg.data.paths import resolve_inside
from semidg.data.reading import hold, record_image, record_mask
from semidg.data.styles import style_features
from semidg.errors import DataError
from semidg.experiment.audit.issues import Issue
from semidg.experiment.audit.markers import find_markers
from semidg.experiment.audit.masks import check_mask
from semidg.experiment.audit.texts import Line, find_text, is_near
from semidg.method_config import FourierConfig
from semidg.types import IGNORE_INDEX, Record

#: Side of the squashed image whose spectrum is taken, and of the squashed masks of which the Dice is taken.
SIDE = 128
#: Half-width of the low-frequency window, as Fourier mixing has it by default.
WINDOW = FourierConfig().window

_PICTURE = 320  # longest side of the picture on the page
_QUALITY = 80

Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class Case:
    """What is kept of a record whose files are all right.

    thumbnail: (64, 64) grey, by which twins are found. histogram: (256,) part of the pixels of each grey value.
    amplitude: (R, S) low-frequency amplitudes in dB. mask: (SIDE, SIDE) class numbers, None if unlabelled. area: marked
    part of the image. picture: JPEG, small. outline: PNG of class numbers, of the size of the picture. features: of
    which styles are derived, if that was asked for.
    """

    record: Record
    thumbnail: Labels
    histogram: NDArray[np.float64]
    amplitude: NDArray[np.float64]
    mask: Labels | None
    area: float
    picture: bytes
    outline: bytes | None
    features: NDArray[np.float64] | None = None


def look_at_file(
    root: Path, records: Sequence[Record], classes: int, styled: bool
) -> list[tuple[Case | None, list[Issue]]]:
    """Look at the records of one file, which is decoded once."""
    held = hold(root, records[0], classes)
    looked = [look(root, record, classes, styled) for record in records]
    del held
    told: set[tuple[str, ...]] = set()
    for record, (case, issues) in zip(records, looked, strict=True):
        if case is not None and record.masks and record.masks not in told:  # once a file, whichever planes are there
            told.add(record.masks)
            issues.extend(_places(root, record))
    return looked


def look(root: Path, record: Record, classes: int, styled: bool = False) -> tuple[Case | None, list[Issue]]:
    """Decode a record and check it by itself; no case where one of its files cannot be used."""
    issues: list[Issue] = []
    rgb: Labels | None = None
    try:
        rgb = record_image(root, record, channels=3)
    except DataError as error:
        issues.append(Issue(record.id, record.image, "file that cannot be used", _relative(error, root)))
    parts: list[Labels] = []
    for file in record.masks:
        part = _read_mask(root, record, file, classes, issues)
        if part is not None and rgb is not None and part.shape != rgb.shape[:2]:
            text = f"the image is {_size(rgb)}, the mask {_size(part)}"
            issues.append(Issue(record.id, file, "size of image and mask differ", text))
        elif part is not None:
            parts.append(part)
    if rgb is None or issues:
        return None, issues
    labels = _united(root, record, parts, classes) if parts else None
    grey = np.asarray(Image.fromarray(rgb).convert("L"))
    if labels is not None:
        issues += check_mask(record, [] if record.vote else parts, labels)
        issues += _markers(record, rgb, grey, labels)
    issues += _texts(record, grey, None if labels is None else labels > 0)
    case = _case(record, rgb, grey, labels)
    return replace(case, features=style_features(grey)) if styled else case, issues


def _read_mask(root: Path, record: Record, file: str, classes: int, issues: list[Issue]) -> Labels | None:
    one = replace(record, masks=(file,), vote=False)
    try:
        labels = record_mask(root, one, classes)
    except DataError as error:
        try:  # what can be read as an image but not as a mask has wrong values
            record_image(root, replace(one, image=file, masks=()), channels=1)
            kind = "mask with other values"
        except DataError:
            kind = "file that cannot be used"
        issues.append(Issue(record.id, file, kind, _relative(error, root)))
        return None
    if (labels == IGNORE_INDEX).all():
        issues.append(Issue(record.id, file, "mask without a known pixel", "all pixels have a value to ignore"))
        return None
    return _known(labels)


def _united(root: Path, record: Record, parts: list[Labels], classes: int) -> Labels:
    if record.vote:
        return _known(record_mask(root, record, classes))
    united: Labels = np.maximum.reduce(parts)
    return united


def _known(labels: Labels) -> Labels:
    """The mask with 0 for pixels that are not known: nothing is said of them."""
    return np.where(labels == IGNORE_INDEX, np.uint8(0), labels)


def _markers(record: Record, rgb: Labels, grey: Labels, labels: Labels) -> Iterator[Issue]:
    found = find_markers(rgb, grey, labels > 0)
    if found.crosses:
        left, top = (min(box[k] for box in found.crosses) for k in (0, 1))
        right, bottom = (max(box[k] + box[k + 2] for box in found.crosses) for k in (0, 1))
        text = f"{len(found.crosses)} cross(es) near the border of the mask"
        box = (left, top, right - left, bottom - top)
        yield Issue(record.id, record.image, "calliper at the lesion", text, len(found.crosses), box=box)
    if found.coloured:
        text = f"{found.coloured} coloured pixels near the border of the mask"
        yield Issue(record.id, record.image, "colour at the lesion", text, found.coloured, box=found.ink)


def _places(root: Path, record: Record) -> Iterator[Issue]:
    """Masks that lie more than half a voxel away from their image by the headers."""
    if record.frame is None or not is_volume_name(record.image):
        return
    header = voxels.read_header(resolve_inside(root, record.image))
    limit = min((mm for mm in header.spacing if mm), default=1.0) / 2
    here = voxels.centre(resolve_inside(root, record.image))
    for file in record.masks:
        there = voxels.centre(resolve_inside(root, file)) if is_volume_name(file) else None
        if here is not None and there is not None and (mm := float(np.linalg.norm(here - there))) > limit:
            yield Issue(record.id, file, "mask placed elsewhere", f"{mm:.3g} mm from {record.image}", mm)


def _texts(record: Record, grey: Labels, foreground: NDArray[np.bool_] | None) -> Iterator[Issue]:
    """The lines of text near the mask as one issue, the others as one."""
    parts: dict[str, list[Line]] = {"text at the lesion": [], "text in the image": []}
    for line in find_text(grey):
        near = foreground is not None and is_near(line.box, foreground)
        parts["text at the lesion" if near else "text in the image"].append(line)
    for kind, lines in parts.items():
        if lines:
            letters = sum(line.letters for line in lines)
            text = f"{letters} letters in {len(lines)} line(s)" + (", framed is the longest" if len(lines) > 1 else "")
            longest = max(lines, key=lambda line: line.letters)
            yield Issue(record.id, record.image, kind, text, letters, box=longest.box)


def _case(record: Record, rgb: Labels, grey: Labels, labels: Labels | None) -> Case:
    height, width = grey.shape
    small = resize_image(grey[..., None], SIDE)[..., 0]
    amplitude = amplitude_window(torch.from_numpy(small)[None, None].float() / 255, WINDOW)[0, 0].numpy()
    scale = min(1.0, _PICTURE / max(height, width))
    shape = (max(1, round(width * scale)), max(1, round(height * scale)))
    plain = np.array_equal(rgb[..., 0], rgb[..., 1]) and np.array_equal(rgb[..., 0], rgb[..., 2])
    picture = Image.fromarray(grey if plain else rgb).resize(shape, Image.Resampling.BILINEAR)
    outline = None if labels is None else Image.fromarray(labels).resize(shape, Image.Resampling.NEAREST)
    return Case(
        record=replace(record, width=width, height=height),
        thumbnail=thumbnail(grey),
        histogram=np.bincount(grey.ravel(), minlength=256) / grey.size,
        amplitude=20 * np.log10(1 + amplitude.astype(np.float64)),
        mask=None if labels is None else resize_mask(labels, SIDE),
        area=0.0 if labels is None else float((labels > 0).mean()),
        picture=_encoded(picture, "JPEG", quality=_QUALITY),
        outline=None if outline is None else _encoded(outline, "PNG"),
    )


def _encoded(image: Image.Image, form: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def _relative(error: DataError, root: Path) -> str:
    """The text of an error with paths from the root on: a list is shown to others."""
    return str(error).replace(f"{root}/", "")


def _size(array: Labels) -> str:
    return f"{array.shape[1]} x {array.shape[0]}"
