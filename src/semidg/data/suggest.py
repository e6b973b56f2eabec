"""A guess at the patterns of a data set that is in no known layout, for the error that says so."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from pathlib import Path, PurePosixPath

from semidg.data.images import is_image_name, stem

#: Files and folders looked at: the guess must not walk through an archive.
_MOST = 20_000

_MASK = re.compile(r"mask|\bgt|gt\b|(?<!un)label|seg|annot|truth|manual|outline|contour|tumou?r|lesion|roi\b", re.I)
_TAIL = re.compile(rf"[_\- .]?({_MASK.pattern})", re.IGNORECASE)


def suggest_patterns(root: Path) -> tuple[str, str] | None:
    """Patterns for ``data.images`` and ``data.masks`` that fit the files below ``root``, or None without an idea.

    Folders beside each other are looked for that hold files of the same names but for what all of them begin and end
    with, of which one is called like masks; or a folder in which names come twice, once with such a word at the end.
    """
    folders = _names(root)
    beside: defaultdict[str, list[str]] = defaultdict(list)
    for folder in folders:
        beside[PurePosixPath(folder).parent.as_posix()].append(folder)
    found: list[tuple[str, str]] = []
    for siblings in beside.values():
        masks = [folder for folder in siblings if _MASK.search(PurePosixPath(folder).name)]
        images = [folder for folder in siblings if folder not in masks]
        pairs = [(one, other) for other in masks for one in images][:100]
        found += [g for a, b in pairs if a != "." for g in [_in_two(a, folders[a], b, folders[b])] if g]
    if not found:
        found = [guess for folder, names in folders.items() for guess in [_in_one(folder, names)] if guess]
    return _with_domain(found) if found else None


def _names(root: Path) -> dict[str, list[str]]:
    """The names of the images, without ending, by folder; hidden ones and names with a wildcard are passed over."""
    folders: dict[str, list[str]] = {}
    seen = 0
    for place, inner, files in os.walk(root):
        inner[:] = sorted(name for name in inner if not name.startswith(".") and not set(name) & set("*?[{"))
        seen += len(inner) + len(files)
        names = sorted(stem(name) for name in files if is_image_name(name) and not set(name) & set("*?[{"))
        if names:
            folders[Path(place).relative_to(root).as_posix()] = names
        if seen > _MOST:
            break
    return folders


def named_alike(image_names: list[str], mask_names: list[str]) -> bool:
    """Whether most names of two folders, sorted and without ending, are the same but for what all of a folder begin
    and end with: ``bus_0001`` and ``mask_0001``."""
    return _in_two("", image_names, "", mask_names) is not None


def _in_two(images: str, image_names: list[str], masks: str, mask_names: list[str]) -> tuple[str, str] | None:
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
    owners: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        for match in _TAIL.finditer(name):
            if name[: match.start()] in there:
                owners[match[0]].append(name[: match.start()])
    if not owners:
        return None
    start = "" if folder == "." else f"{folder}/"
    tail, bases = max(owners.items(), key=lambda item: len(item[1]))
    image = "*"
    others = [name for name in names if name not in bases and tail not in name]
    if others and len({len(base) for base in bases}) == 1 and len(set(bases)) > 1:  # case001_other1 beside case001
        head = _beginning(bases).rstrip("0123456789")
        image = head + "?" * (len(bases[0]) - len(head))
    return f"{start}{image}", f"{start}{image}{tail}*"


def _with_domain(found: list[tuple[str, str]]) -> tuple[str, str]:
    """The first guess, or, of guesses that differ in their first folder only, one with ``{domain}`` in its place."""
    parts = [(*images.partition("/"), *masks.partition("/")) for images, masks in found]
    (domain, _, images, other, _, masks) = parts[0]
    alike = {p[0] for p in parts if p[0] == p[3] and (p[2], p[5]) == (images, masks)}
    if domain == other and len(alike) > 1 and images and masks:
        return f"{{domain}}/{images}", f"{{domain}}/{masks}"
    return found[0]
