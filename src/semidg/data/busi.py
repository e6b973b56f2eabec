"""The BUSI layout: ``benign/benign (1).png`` with ``benign (1)_mask.png``, ``_mask_1.png`` ... beside it.

The domain of a record is its class (benign, malignant, normal): a shift of class, not of scanner, and to be called so.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from semidg.data.images import stem as without_ending
from semidg.data.paths import Problems, list_images
from semidg.types import Record

CLASSES = ("benign", "malignant", "normal")

_MASK = re.compile(r"(?P<image>.+)_mask(_\d+)?", re.DOTALL)


def find_root(folder: Path) -> Path | None:
    """``folder``, or the one folder in it, that holds ``benign`` and ``malignant`` image folders; None if neither."""
    if _is_root(folder):
        return folder
    inside = [child for child in sorted(folder.iterdir()) if child.is_dir() and _is_root(child)]
    return inside[0] if len(inside) == 1 else None


def find_records(root: Path, problems: Problems, include_normal: bool = False) -> list[Record]:
    """Records without size and group, in natural order; a mask without image and a doubled name go to ``problems``."""
    records: list[Record] = []
    for name in CLASSES:
        if (root / name).is_dir() and (name != "normal" or include_normal):
            records += _class_records(root, name, problems)
    return records


def _is_root(folder: Path) -> bool:
    return (folder / "benign").is_dir() and (folder / "malignant").is_dir()


def _class_records(root: Path, name: str, problems: Problems) -> list[Record]:
    images: dict[str, str] = {}
    masks: dict[str, list[str]] = {}
    for path in list_images(root, root / name, problems):
        stem = without_ending(PurePosixPath(path).name)
        match = _MASK.fullmatch(stem)
        if match:
            masks.setdefault(match["image"], []).append(path)
        elif stem in images:
            problems.add("name that is not unique", f"{images[stem]} and {path}", path)
        else:
            images[stem] = path
    for stem, paths in masks.items():
        if stem not in images:
            for path in paths:
                problems.add("mask without image", path)
    return [
        Record(f"{name}/{stem}", path, tuple(sorted(masks.get(stem, ()), key=_mask_order)), name, name, "", 0, 0)
        for stem, path in images.items()
    ]


def _mask_order(path: str) -> tuple[int, str]:
    number = re.search(r"_mask_(\d+)$", without_ending(path))
    return (int(number[1]) if number else -1, path)
