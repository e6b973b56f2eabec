"""Several data sets as one: each root a domain, all paths below the folder that holds the roots."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from semidg.data.groups import read_groups
from semidg.data.layouts import Choices, find_records
from semidg.data.paths import Problems
from semidg.errors import DataError
from semidg.types import Record


@dataclass(frozen=True)
class Found:
    """What lies on disk, before any image is opened.

    root: the folder that paths start from. named: group of each record by groups.csv, None where it says nothing.
    """

    root: Path
    layout: str
    records: list[Record]
    named: list[str | None]
    problems: Problems


def find(root: Path, layout: str, choices: Choices, more_roots: Sequence[Path] = ()) -> Found:
    """The records of the data set at ``root``, and of those at ``more_roots`` if there are any.

    Several roots: paths start from their common folder, and the domain of a record is its root: the name of the root
    folder, or its path below the common folder where two have one name. Raises DataError for roots that lie in one
    another or have no common folder, and, as for one root, for what is no data set.
    """
    if not more_roots:
        located, name, records, problems = find_records(root, layout, choices)
        return Found(located, name, records, read_groups(located, records, problems), problems)
    bases = [_base(path) for path in (root, *more_roots)]
    common = common_root(bases)
    together = Found(common, "several", [], [], Problems(common))
    for path, base, domain in zip((root, *more_roots), bases, _domains(bases, common), strict=True):
        prefix = base.relative_to(common)
        start = f"{domain}/"
        excluded = frozenset(name.removeprefix(start) for name in choices.excluded if name.startswith(start))
        one = find(base if path.is_dir() else base / path.name, layout, choices._replace(excluded=excluded))
        inner = prefix / one.root.relative_to(base)
        together.problems.take(one.problems, inner.as_posix())
        for record, group in zip(one.records, one.named, strict=True):
            together.records.append(_below(record, inner, domain))
            together.named.append(group and f"{domain}:{group}")
    return together


def common_root(bases: Sequence[Path]) -> Path:
    """The folder that holds all of ``bases``; raises DataError if one lies in another, or on another drive."""
    for number, base in enumerate(bases):
        for other in bases[:number]:
            if base.is_relative_to(other) or other.is_relative_to(base):
                raise DataError(f"{base}: lies in {other} (data.root, data.more_roots); each must be a folder apart")
    try:
        return Path(os.path.commonpath(bases))
    except ValueError as error:
        raise DataError(f"data.root and data.more_roots: have no folder in common ({error})") from error


def roots_of(root: Path, more_roots: Sequence[Path]) -> tuple[Path, list[Path]]:
    """(common folder, the roots themselves) of several roots, without looking into them."""
    bases = [_base(path) for path in (root, *more_roots)]
    return common_root(bases), bases


def _base(path: Path) -> Path:
    """The folder of a root, links followed: below it all its paths lie."""
    if not path.exists():
        raise DataError(f"{path}: does not exist; correct data.root or data.more_roots")
    return path.resolve() if path.is_dir() else path.parent.resolve()


def _domains(bases: Sequence[Path], common: Path) -> list[str]:
    names = [base.name for base in bases]
    return [
        name if names.count(name) == 1 else base.relative_to(common).as_posix()
        for name, base in zip(names, bases, strict=True)
    ]


def _below(record: Record, prefix: Path, domain: str) -> Record:
    return replace(
        record,
        id=f"{domain}/{record.id}",
        image=(prefix / record.image).as_posix(),
        masks=tuple((prefix / mask).as_posix() for mask in record.masks),
        domain=domain,
        series=record.series and (prefix / record.series).as_posix(),
        group=record.group and f"{domain}:{record.group}",
    )
