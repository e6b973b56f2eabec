"""The folders layout: ``DOMAIN/images/NAME.ext`` with ``DOMAIN/masks/NAME.ext``, ``DOMAIN/masks/NAME_mask.ext`` or,
as 3D Slicer calls it, ``DOMAIN/masks/NAME.seg.nrrd``.

With ``images`` and ``masks`` in the root itself there is one domain, called like the root.
Folders inside ``images`` are kept: ``images/a/1.png`` has its mask at ``masks/a/1.png``. An image without a mask is
unlabelled. Mask and image may have different endings; of files that hold several planes, both hold the same ones.
``spacing.csv`` in the root may give the size of a pixel.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace
from pathlib import Path, PurePosixPath

from semidg.data.images import stem
from semidg.data.paths import Problems, list_images, natural_key
from semidg.data.spacing import read_spacing
from semidg.errors import DataError
from semidg.types import Record

_MASK = re.compile(r"(?P<image>.+)(?:_mask(?:_\d+)?|\.seg)", re.DOTALL)


def domains(root: Path) -> list[str]:
    """Names of the folders in ``root`` that hold ``images`` or ``masks``, in natural order."""
    found = [
        child.name
        for child in root.iterdir()
        if not child.name.startswith(".") and ((child / "images").is_dir() or (child / "masks").is_dir())
    ]
    return sorted(found, key=natural_key)


def holds_images(root: Path) -> bool:
    """Whether ``images`` lies in ``root`` itself, with ``masks`` or alone: then the root is one domain."""
    if not (root / "images").is_dir() or domains(root) == ["images"]:
        return False
    others = [child for child in root.iterdir() if child.is_dir() and not child.name.startswith(".")]
    return (root / "masks").is_dir() or len(others) == 1


def find_records(root: Path, problems: Problems) -> list[Record]:
    """Records without size and group, in natural order; a mask without image and a doubled name go to ``problems``.

    Raises DataError for a spacing.csv that does not fit, and for images both in the root and in domains below it.
    """
    found = domains(root)
    if holds_images(root):
        if found:
            raise DataError(
                f"{root}: holds images/ itself, and so do folders in it ({', '.join(found[:3])}); give one of them, or "
                "move images/ and masks/ into a folder of their own, which then is a domain too"
            )
        found = [""]
    records = [record for domain in found for record in _domain_records(root, domain, problems)]
    spacing = read_spacing(root, {record.image: record.domain for record in records})
    return [replace(record, spacing=spacing.get(record.image)) for record in records]


def _domain_records(root: Path, domain: str, problems: Problems) -> list[Record]:
    images = _by_name(root, domain, "images", problems)
    masks = _by_name(root, domain, "masks", problems)
    found: dict[str, list[str]] = {name: [] for name in images}
    for name, path in masks.items():
        match = _MASK.fullmatch(name)
        owner = name if name in images or not match else match["image"]
        if owner in found:
            found[owner].append(path)
        else:
            problems.add("mask without image", path)
    start, name_of_domain = (f"{domain}/", domain) if domain else ("", root.resolve().name or "images")
    return [
        Record(start + name, path, tuple(found[name]), name_of_domain, "", "", 0, 0) for name, path in images.items()
    ]


def _by_name(root: Path, domain: str, part: str, problems: Problems) -> dict[str, str]:
    """Path without ending, relative to ``DOMAIN/part`` -> path relative to the root."""
    folder = root / domain / part
    named: dict[str, str] = {}
    if not folder.is_dir():
        return named
    for path in list_images(root, folder, problems, recursive=True):
        name = stem(PurePosixPath(path).relative_to(PurePosixPath(domain) / part).as_posix())
        name = unicodedata.normalize("NFC", name)  # some programs of macOS write an umlaut as two characters
        if name in named:
            problems.add("name that is not unique", f"{named[name]} and {path}", path)
        else:
            named[name] = path
    return named
