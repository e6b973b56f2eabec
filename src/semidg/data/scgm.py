"""The Spinal Cord Grey Matter Segmentation Challenge (2016) as downloaded.

``siteN-scMM-image.nii.gz`` with ``siteN-scMM-mask-r1.nii.gz`` to ``-r4``, in the root or in folders of it (training and
test data). A site is a domain; the mask is what most of the raters say; the images of the test data have none.
"""

from __future__ import annotations

import re
from pathlib import Path

from semidg.data.images import stem
from semidg.data.paths import Problems, list_images, natural_key, require_classes
from semidg.types import Record

_IMAGE = re.compile(r"(?P<subject>(?P<site>site\d+)-sc\d+)-image", re.ASCII)
_MASK = re.compile(r"(?P<subject>site\d+-sc\d+)-mask-r\d+", re.ASCII)
_CLASSES = "background, grey matter, white matter"


def find_root(folder: Path) -> Path | None:
    """``folder`` if it, or a folder in it, holds images that are named so."""
    return folder if _folders(folder) else None


def find_records(root: Path, problems: Problems, classes: int) -> list[Record]:
    """Records without size, in natural order; files that do not fit go to ``problems``.

    Raises DataError if ``classes`` is too small for the masks.
    """
    require_classes(root, 3, classes, _CLASSES)
    images: dict[str, tuple[str, str]] = {}
    masks: dict[str, list[str]] = {}
    for folder in _folders(root):
        for path in list_images(root, folder, problems):
            name = stem(path.rpartition("/")[2])
            if match := _MASK.fullmatch(name):
                masks.setdefault(match["subject"], []).append(path)
            elif match := _IMAGE.fullmatch(name):
                if match["subject"] in images:
                    problems.add("name that is not unique", f"{images[match['subject']][0]} and {path}", path)
                else:
                    images[match["subject"]] = path, match["site"]
    for subject, paths in masks.items():
        if subject not in images:
            for path in paths:
                problems.add("mask without image", path)
    return [
        Record(
            subject, path, tuple(masks.get(subject, ())), site, "", subject, 0, 0, vote=len(masks.get(subject, ())) > 1
        )
        for subject, (path, site) in images.items()
    ]


def _folders(root: Path) -> list[Path]:
    inside = sorted((child for child in root.iterdir() if child.is_dir()), key=lambda path: natural_key(path.name))
    return [folder for folder in (root, *inside) if not folder.name.startswith(".") and _holds_images(folder)]


def _holds_images(folder: Path) -> bool:
    try:
        return any(_IMAGE.fullmatch(stem(child.name)) for child in folder.iterdir())
    except OSError:  # a folder in the root that may not be listed is none of this data set
        return False
