"""Listing the files of a data set, keeping paths inside its root, and collecting what is wrong with them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path, PurePosixPath

from semidg.data.images import is_image_name
from semidg.errors import DataError

#: Kinds of problem, in the order in which they are listed, with the mend.
PROBLEMS = {
    "row that cannot be used": "correct or remove the line",
    "file that cannot be used": "mend, replace or remove it",
    "mask without image": "add the image, correct the name, remove the mask, or say how masks are named: data.masks",
    "size of image and mask differ": "a mask must have the width and height of its image",
    "series that is no volume": "the files of one series in a folder must have one size and lie at even distances",
    "name that is not unique": "two files claim one name; rename or remove one of them",
    "path that is not accepted": "a data set is read from plain files and folders below its root, with UTF-8 names",
    "mask without a known pixel": (
        "remove such masks, then their images are unlabelled, or mend data.ignore_label or data.mask_values"
    ),
}

_SHOWN = 20  # a wrong pattern makes every mask one


class Problems:
    """What is wrong with a data set, by kind, so that one error can list it all."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._found: dict[str, dict[str, str]] = {kind: {} for kind in PROBLEMS}

    def add(self, kind: str, line: str, file: str | None = None) -> None:
        """Note one problem. kind: a key of PROBLEMS. line: names the file, which is ``file``, or all before a colon."""
        file = file or line.partition(": ")[0]
        self._found[kind][printable(line)] = printable(file)  # said once, of a file with many planes too

    def take(self, other: Problems, where: str) -> None:
        """Note all problems of ``other`` too, each line beginning with ``where``."""
        for kind, lines in other._found.items():
            self._found[kind] |= {
                f"{printable(where)}: {line}": f"{printable(where)}/{file}" for line, file in lines.items()
            }

    def __bool__(self) -> bool:
        return any(self._found.values())

    def lines(self) -> list[str]:
        """One line a problem, beginning with its kind."""
        return [f"{kind}: {line}" for kind, lines in self._found.items() for line in lines]

    def told(self) -> list[tuple[str, str, str]]:
        """(kind, file, line) of each problem."""
        return [(kind, file, line) for kind, lines in self._found.items() for line, file in lines.items()]

    def text(self) -> str:
        """The list under one heading a kind, each with its mend; of a kind at most ``_SHOWN``."""
        parts = [f"{self.root}: {len(self.lines())} problem(s) in the data set"]
        for kind, lines in self._found.items():
            if lines:
                parts += [f"{kind} ({len(lines)}; {PROBLEMS[kind]}):", *(f"  {line}" for line in islice(lines, _SHOWN))]
            if len(lines) > _SHOWN:
                parts.append(f"  and {len(lines) - _SHOWN} more; semidg index --skip-bad lists all")
        return "\n".join(parts)


def list_images(root: Path, folder: Path, problems: Problems, recursive: bool = False) -> Iterator[str]:
    """POSIX paths, relative to ``root``, of the image files in ``folder``, in natural order.

    Hidden files and folders and files of other kinds are passed over. A link that leaves the root, a broken link, a
    linked folder, and a name that is no UTF-8 go to ``problems``. Raises DataError if a folder cannot be listed.
    """
    if folder.resolve() != root.resolve() / folder.relative_to(root):
        problems.add("path that is not accepted", f"{folder.relative_to(root).as_posix()}: a link to a folder")
        return
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: natural_key(entry.name))
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror}); check path and permissions") from error
    for entry in entries:
        relative = Path(entry.path).relative_to(root).as_posix()
        if entry.is_dir() and recursive and not entry.name.startswith("."):
            yield from list_images(root, Path(entry.path), problems, recursive)
        if not is_image_name(entry.name) or entry.is_dir():
            continue
        reason = _refusal(root, relative, entry)
        if reason:
            problems.add("path that is not accepted", f"{relative}: {reason}")
        else:
            yield relative


def resolve_inside(root: Path, relative: str) -> Path:
    """``root / relative``, refused with DataError if it leaves the root by "..", as an absolute path or by a link."""
    pure = PurePosixPath(relative)
    if not relative or pure.is_absolute() or ".." in pure.parts:
        raise DataError(f"{printable(relative) or 'an empty path'}: must be a path below the data set's root {root}")
    path = root / relative
    try:
        inside = path.resolve().is_relative_to(root.resolve())
    except (OSError, ValueError, RuntimeError) as error:  # a NUL in the name, a loop of links
        raise DataError(f"{printable(relative)}: not a usable path ({error}); correct it") from error
    if not inside:
        raise DataError(f"{printable(relative)}: leaves the data set's root {root}; copy the file into the root")
    return path


def require_classes(root: Path, needed: int, classes: int, names: str) -> None:
    """Raise DataError if the masks of a data set hold more classes than ``classes``; ``names`` are those of all."""
    if classes < needed:
        raise DataError(
            f"{root}: its masks hold {needed} classes ({names}); set network.classes to {needed} "
            f"(--network.classes {needed}, or --classes {needed} of index and split), or say which are wanted with "
            "data.mask_values, '1:1,*:0' say"
        )


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sort key by which "a (2)" comes before "a (10)"."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if number % 2 else (0, part) for number, part in enumerate(parts)] + [(0, name)]


def printable(text: str) -> str:
    """``text`` with line breaks, control characters and broken UTF-8 shown as escapes: safe in a one-line message."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def _refusal(root: Path, relative: str, entry: os.DirEntry[str]) -> str | None:
    try:
        relative.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8; rename it"
    if entry.is_symlink():
        if not Path(entry.path).exists():
            return "a broken link"
        try:
            resolve_inside(root, relative)
        except DataError:
            return "a link to a file outside the root"
    return None if entry.is_file() else "not a regular file"


def cpu_threads() -> int:
    """Threads worth starting: the cores that this process may use, at most 16."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(16, usable)
