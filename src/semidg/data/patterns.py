"""Data sets in no layout of ours: a pattern for the images and one for their masks, ``original/*`` and ``GT/*_mask``.

``*``, ``?`` and ``[...]`` are those of a shell; ``**/`` stands for folders of any depth; ``{domain}`` and ``{class}``
stand for the name of a record's domain and class. A mask belongs to the image for which all stand for the same text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from semidg.data.images import is_image_name, stem
from semidg.data.paths import Problems, list_images, printable
from semidg.data.spacing import read_spacing
from semidg.errors import DataError
from semidg.types import Record

_PARTS = re.compile(r"(?P<deep>\*\*/)|(?P<named>\{(?:domain|class)\})|(?P<any>\*+)|(?P<one>\?)|(?P<of>\[[^]/]+\])")
_SHELL = {"deep": "((?:[^/]+/)*)", "any": "([^/]*)", "one": "([^/])"}


class Match(NamedTuple):
    """What the wildcards of a pattern stand for in one path: the named ones, and the others in their order."""

    named: dict[str, str]
    wildcards: tuple[str, ...]


class Pattern:
    """A pattern of paths, POSIX and relative to the root of a data set. Raises DataError if it is none.

    Without the ending of an image format it fits images of all formats.
    """

    def __init__(self, text: str) -> None:
        pure = PurePosixPath(text)
        if not text.strip() or pure.is_absolute() or ".." in pure.parts:
            raise DataError(f"{text!r}: a pattern of paths below the root of the data set is needed, such as images/*")
        self.text = text.removeprefix("./")
        bare = self.text.removesuffix(".*")
        self._ending = is_image_name("x" + PurePosixPath(bare).name)
        regex, literal = "", 0
        self.names: list[str] = []
        self.wildcards = 0
        for part in _PARTS.finditer(bare):
            regex += re.escape(bare[literal : part.start()])
            literal = part.end()
            if part["named"]:
                name = part["named"][1:-1]
                regex += rf"(?P={name})" if name in self.names else rf"(?P<{name}>[^/]+)"
                self.names.append(name)
                continue
            self.wildcards += 1
            if part["of"]:
                inside = part["of"][1:-1].replace("\\", r"\\").replace("[", r"\[")
                regex += f"([^/{inside[1:]}])" if inside[0] in "!^" and len(inside) > 1 else f"([{inside}])"
            else:
                regex += _SHELL[str(part.lastgroup)]
        try:
            self._regex = re.compile(regex + re.escape(bare[literal:]), re.DOTALL)
        except re.error as error:
            raise DataError(f"{text!r}: not a usable pattern ({error})") from error
        fixed = _PARTS.split(bare)[0]
        self.folder = PurePosixPath(fixed + "x").parent.as_posix()

    def match(self, path: str) -> Match | None:
        """What the wildcards stand for in ``path``, None if it does not fit."""
        found = self._regex.fullmatch(path if self._ending else stem(path))
        if found is None:
            return None
        named = found.groupdict()
        numbers = {self._regex.groupindex[name] for name in named}
        others = tuple(text for number, text in enumerate(found.groups(), start=1) if number not in numbers)
        return Match(named, others)


def _require_pair(image: Pattern, mask: Pattern) -> None:
    """Raise DataError unless each wildcard of ``image`` has one of ``mask``."""
    if set(image.names) != set(mask.names):
        raise DataError(f"{image.text!r} and {mask.text!r}: {{domain}} and {{class}} must stand in both or in none")
    if mask.wildcards < image.wildcards:
        raise DataError(
            f"{image.text!r} has {image.wildcards} wildcard(s) and {mask.text!r} {mask.wildcards}: "
            "to each of the images belongs one of the masks"
        )


def find_records(root: Path, images: str, masks: str | None, problems: Problems) -> list[Record]:
    """Records without size and group, in natural order of their paths.

    Wildcards that the pattern of the masks has more than that of the images may stand for anything: such an image has
    several masks. A file that fits both patterns is a mask. Without ``{domain}`` all images are of one domain, called
    like the folder. A mask without image and two images of one name go to ``problems``. Raises DataError if no file
    fits a pattern, and for a spacing.csv that does not fit.
    """
    image_pattern, mask_pattern = Pattern(images), None if masks is None else Pattern(masks)
    if mask_pattern is not None:
        _require_pair(image_pattern, mask_pattern)
    patterns = [pattern for pattern in (image_pattern, mask_pattern) if pattern is not None]
    paths = list(_paths(root, patterns, problems))
    refused = bool(problems)
    found_masks: dict[tuple[object, ...], list[str]] = {}
    for path in paths:
        if mask_pattern is not None and (match := mask_pattern.match(path)):
            same = found_masks.setdefault(_key(match, image_pattern), [])
            if same and mask_pattern.wildcards == image_pattern.wildcards:
                problems.add("name that is not unique", f"{same[0]} and {path}", path)
            same.append(path)
    claimed = {path for group in found_masks.values() for path in group}
    records: dict[str, Record] = {}
    used: set[tuple[object, ...]] = set()
    for path in paths:
        match = image_pattern.match(path)
        if match is None or path in claimed:
            continue
        name, key = stem(path), _key(match, image_pattern)
        if name in records:
            problems.add("name that is not unique", f"{records[name].image} and {path}", path)
            continue
        domain = match.named.get("domain", root.resolve().name or "data")
        used.add(key)
        records[name] = Record(
            name, path, tuple(found_masks.get(key, ())), domain, match.named.get("class", ""), "", 0, 0
        )
    for key, lost in found_masks.items():
        for path in lost if key not in used else ():
            problems.add("mask without image", path)
    if not records and not refused:
        raise _none_fits(root, image_pattern, paths)
    if mask_pattern is not None and not claimed and not refused:
        raise _none_fits(root, mask_pattern, paths)
    spacing = read_spacing(root, {record.image: record.domain for record in records.values()})
    return [replace(record, spacing=spacing.get(record.image)) for record in records.values()]


def _paths(root: Path, patterns: list[Pattern], problems: Problems) -> Iterator[str]:
    """The images in the folders of the patterns; problems are those of files that fit one."""
    seen: set[str] = set()
    for folder in dict.fromkeys(pattern.folder for pattern in patterns):
        base = root / folder
        if not base.is_dir():
            raise DataError(f"{base}: there is no such folder; correct data.images or data.masks")
        noted = Problems(root)
        for path in list_images(root, base, noted, recursive=True):
            if path not in seen:
                seen.add(path)
                yield path
        for kind, file, line in noted.told():
            if line.endswith(": a link to a folder") or any(pattern.match(file) for pattern in patterns):
                problems.add(kind, line, file)


def _key(match: Match, images: Pattern) -> tuple[object, ...]:
    return (*sorted(match.named.items()), *match.wildcards[: images.wildcards])


def _none_fits(root: Path, pattern: Pattern, paths: list[str]) -> DataError:
    there = f"image files there are {', '.join(paths[:3])}, ..." if paths else "there is no image there at all"
    return DataError(f"{root}: no file fits {pattern.text!r}; {printable(there)}; correct data.images or data.masks")
