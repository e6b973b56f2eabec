"""A guess at the patterns of a data set that is in no known layout, for the error that says so."""

from __future__ import annotations

import re
from collections import defaultdict
from itertools import islice
from pathlib import Path, PurePosixPath

from semidg.data.images import stem
from semidg.data.paths import Problems, list_images
from semidg.errors import DataError

#: Files looked at: the guess must not walk through an archive.
_MOST = 5000

_MASK = re.compile(r"mask|gt\b|\bgt|label|seg|annot|truth|manual|outline|contour|tumou?r|lesion|roi\b", re.IGNORECASE)
_TAIL = re.compile(rf"[_\- .]?({_MASK.pattern})", re.IGNORECASE)


def suggest_patterns(root: Path) -> tuple[str, str] | None:
    """Patterns for ``data.images`` and ``data.masks`` that fit the files below ``root``, or None without an idea.

    Folders are looked for that hold files of the same names but for what all of them begin and end with, of which one
    is called like masks; or a folder in which names come twice, once with such a word at the end.
    """
    folders: defaultdict[str, list[str]] = defaultdict(list)
    try:
        for path in islice(list_images(root, root, Problems(root), recursive=True), _MOST):
            pure = PurePosixPath(path)
            folders[pure.parent.as_posix()].append(stem(pure.name))
    except (DataError, OSError):
        return None
    found = [
        guess
        for masks in folders
        for images in folders
        if masks != images and _MASK.search(masks) and not _MASK.search(images)
        for guess in [_in_two(images, folders[images], masks, folders[masks])]
        if guess
    ]
    if not found:
        found = [guess for folder, names in folders.items() for guess in [_in_one(folder, names)] if guess]
    return _with_domain(found) if found else None


def _in_two(images: str, image_names: list[str], masks: str, mask_names: list[str]) -> tuple[str, str] | None:
    if PurePosixPath(images).parent != PurePosixPath(masks).parent:
        return None
    for cut in (False, True):
        (head, tail), (mask_head, mask_tail) = (
            _around(names) if cut else ("", "") for names in (image_names, mask_names)
        )
        cores = {name[len(head) : len(name) - len(tail)] for name in image_names}
        others = {name[len(mask_head) : len(name) - len(mask_tail)] for name in mask_names}
        if len(cores & others) > min(len(cores), len(others)) / 2:
            return f"{images}/{head}*{tail}", f"{masks}/{mask_head}*{mask_tail}"
    return None


def _around(names: list[str]) -> tuple[str, str]:
    """What all of several names begin and end with, but for digits next to what differs."""
    if len(names) < 2:
        return "", ""
    head = _beginning(names).rstrip("0123456789")
    rest = [name[len(head) :] for name in names]
    return head, _beginning([name[::-1] for name in rest])[::-1].lstrip("0123456789")


def _beginning(names: list[str]) -> str:
    """What all names begin with: what the first and the last in order have in common."""
    first, last = min(names), max(names)
    same = [a == b for a, b in zip(first, last, strict=False)]
    return first[: same.index(False) if False in same else len(same)]


def _in_one(folder: str, names: list[str]) -> tuple[str, str] | None:
    there = set(names)
    tails: defaultdict[str, int] = defaultdict(int)
    for name in names:
        for tail in _TAIL.finditer(name):
            if name[: tail.start()] in there:
                tails[tail[0]] += 1
    if not tails:
        return None
    start = "" if folder == "." else f"{folder}/"
    return f"{start}*", f"{start}*{max(tails, key=lambda tail: tails[tail])}*"


def _with_domain(found: list[tuple[str, str]]) -> tuple[str, str]:
    """The first guess, or, of guesses that differ in their first folder only, one with ``{domain}`` in its place."""
    images, masks = found[0]
    for guess in found[1:]:
        inner = [text.partition("/")[2] for text in (*found[0], *guess)]
        if inner[:2] == inner[2:] and all(inner):
            return f"{{domain}}/{inner[0]}", f"{{domain}}/{inner[1]}"
    return images, masks
