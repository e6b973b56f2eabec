"""Data sets in no layout of ours: a pattern for the images and one for their masks, ``original/*`` and ``GT/*_mask``.

``*``, ``?`` and ``[...]`` are those of a shell; ``**/`` stands for folders of any depth; ``{domain}`` and ``{class}``
stand for the name of a record's domain and class. A mask belongs to the image for which all stand for the same text;
``{mask}`` in the pattern of the masks tells several masks of one image apart.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from semidg.data.images import is_image_name, stem
from semidg.data.paths import Problems, list_images, printable
from semidg.data.spacing import read_spacing
from semidg.errors import DataError
from semidg.types import Record

_PARTS = re.compile(r"(?P<deep>\*\*/)|(?P<named>\{(?:domain|class|mask)\})|(?P<any>\*+)|(?P<one>\?)|(?P<of>\[[^]/]+\])")
#: Regular expressions; NUL, which no path holds, is where a "?" takes the least in place of the most.
_SHELL = {"deep": "((?:[^/]+/)*\0)", "any": "([^/]*\0)", "one": "([^/])"}

#: Most wildcards of a pattern: the time to match a name grows with its length to this power.
_MOST = 6


class Match(NamedTuple):
    """What the wildcards of a pattern stand for in one path: the named ones, and the others in their order."""

    named: dict[str, str]
    wildcards: tuple[str, ...]


class Pattern:
    """A pattern of paths, POSIX and relative to the root of a data set. Raises DataError if it is none.

    Without the ending of an image format it fits images of all formats. recursive: whether files in folders of
    ``folder``, the part without wildcards, may fit.
    """

    def __init__(self, text: str) -> None:
        pure = PurePosixPath(text)
        if not text.strip() or pure.is_absolute() or ".." in pure.parts:
            raise DataError(f"{text!r}: a pattern of paths below the root of the data set is needed, such as images/*")
        self.text = text.removeprefix("./")
        bare = self.text.removesuffix(".*")
        self._ending = is_image_name("x" + PurePosixPath(bare).name)
        fixed = next((bare[: part.start()] for part in _PARTS.finditer(bare)), bare)
        self.folder = PurePosixPath(fixed + "x").parent.as_posix()
        self.recursive = "/" in bare[fixed.rfind("/") + 1 :]
        regex, literal = "", 0
        self.names: set[str] = set()
        self.wildcards = 0
        self.several = False  # whether it holds {mask}
        for part in _PARTS.finditer(bare):
            regex += self._literal(bare[literal : part.start()])
            literal = part.end()
            if part["named"]:
                name = part["named"][1:-1]
                if name == "mask":
                    regex += "(?:[^/]+?)"
                    self.several = True
                    continue
                regex += rf"(?P={name})" if name in self.names else rf"(?P<{name}>[^/]+?)"
                self.names.add(name)
                continue
            self.wildcards += 1
            if part["of"]:
                inside = part["of"][1:-1].replace("\\", r"\\").replace("[", r"\[")
                regex += f"([^/{inside[1:]}])" if inside[0] in "!^" and len(inside) > 1 else f"([{inside}])"
            else:
                regex += _SHELL[str(part.lastgroup)]
        if self.wildcards > _MOST:
            raise DataError(f"{text!r}: {self.wildcards} wildcards; at most {_MOST} can be told apart in time")
        regex += self._literal(bare[literal:])
        try:
            self._long, self._short = (re.compile(regex.replace("\0", lazy), re.DOTALL) for lazy in ("", "?"))
        except re.error as error:
            raise DataError(f"{text!r}: not a usable pattern ({error})") from error

    def match(self, path: str) -> Match | None:
        """What the wildcards stand for in ``path``, None if it does not fit: of several ways that in which the first
        ``*`` stands for most."""
        return self._matched(self._long, path)

    def matches(self, path: str) -> list[Match]:
        """``match``, and that in which the first ``*`` stands for least where it is another."""
        found = [self.match(path), self._matched(self._short, path)]
        return [match for number, match in enumerate(found) if match is not None and match not in found[:number]]

    def _matched(self, regex: re.Pattern[str], path: str) -> Match | None:
        text = unicodedata.normalize("NFC", path if self._ending else stem(path))
        found = regex.fullmatch(text)
        if found is None:
            return None
        named = found.groupdict()
        numbers = {regex.groupindex[name] for name in named}
        others = tuple(part for number, part in enumerate(found.groups(), start=1) if number not in numbers)
        return Match(named, others)

    def _literal(self, text: str) -> str:
        if name := re.search(r"\{(\w+)\}", text):
            raise DataError(
                f"{self.text!r}: {name[0]} is unknown; {{domain}} and {{class}} may stand in a pattern, {{mask}} in "
                "that of the masks, and *"
            )
        return re.escape(unicodedata.normalize("NFC", text))


def _require_pair(image: Pattern, mask: Pattern) -> None:
    """Raise DataError unless each wildcard of ``image`` has one of ``mask``."""
    if image.several:
        raise DataError(f"{image.text!r}: {{mask}} tells masks apart and is for their pattern")
    if image.names != mask.names:
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
    mask_paths = [path for path in paths if mask_pattern is not None and mask_pattern.match(path)]
    claimed = set(mask_paths)
    found: dict[str, tuple[str, Match]] = {}
    for path in paths:
        match = image_pattern.match(path)
        if match is None or path in claimed:
            continue
        if (name := stem(path)) in found:
            problems.add("name that is not unique", f"{found[name][0]} and {path}", path)
        else:
            found[name] = path, match
    if not found and not refused:
        raise _none_fits(root, image_pattern, paths)
    if mask_pattern is not None and not mask_paths and not refused:
        raise _none_fits(root, mask_pattern, paths)
    owners = {_key(match, image_pattern): path for path, match in found.values()}
    of_image = _masks_of(owners, mask_paths, image_pattern, mask_pattern, problems)
    records = []
    for name, (path, match) in found.items():
        domain = match.named.get("domain", root.resolve().name or "data")
        records.append(Record(name, path, tuple(of_image[path]), domain, match.named.get("class", ""), "", 0, 0))
    spacing = read_spacing(root, {record.image: record.domain for record in records})
    return [replace(record, spacing=spacing.get(record.image)) for record in records]


def _masks_of(
    owners: Mapping[tuple[object, ...], str],
    mask_paths: Sequence[str],
    images: Pattern,
    masks: Pattern | None,
    problems: Problems,
) -> dict[str, list[str]]:
    """The masks of each image; a mask of no image or of two, and one too many, go to ``problems``. owners: image by
    ``_key``."""
    found: dict[str, list[str]] = {path: [] for path in owners.values()}
    for path in mask_paths:
        assert masks is not None  # which they fit
        keys = dict.fromkeys(_key(match, images) for match in masks.matches(path))
        of = [owners[key] for key in keys if key in owners]
        if not of:
            problems.add("mask without image", path)
        elif len(of) > 1:
            problems.add("name that is not unique", f"{path} may be the mask of {of[0]} and of {of[1]}", path)
        elif found[of[0]] and masks.wildcards == images.wildcards and not masks.several:
            problems.add("name that is not unique", f"{found[of[0]][0]} and {path}", path)
        else:
            found[of[0]].append(path)
    return found


def _paths(root: Path, patterns: list[Pattern], problems: Problems) -> Iterator[str]:
    """The images in the folders of the patterns; problems are those of files that fit one, and linked folders."""
    seen: set[str] = set()
    for folder in dict.fromkeys(pattern.folder for pattern in patterns):
        base = root / folder
        if not base.is_dir():
            raise DataError(f"{base}: there is no such folder; correct data.images or data.masks")
        noted = Problems(root)
        recursive = any(pattern.recursive for pattern in patterns if pattern.folder == folder)
        for path in list_images(root, base, noted, recursive):
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
