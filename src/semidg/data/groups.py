"""Images that must stay on one side of a split: patients and volumes, united with the near-duplicates."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from semidg.data.paths import Problems, printable, resolve_inside
from semidg.data.tables import read_table
from semidg.errors import DataError
from semidg.types import Record

#: Name of the file in the root of a data set, and its columns; docs/reference/data-formats.md describes it.
FILE = "groups.csv"
COLUMNS = ("image", "group")


def unite(count: int, relations: Sequence[Sequence[Hashable | None]]) -> NDArray[np.int64]:
    """Group number of each of ``count`` images: (count,) int64, numbered by first appearance.

    A relation gives each image a label, or None for no label. Images with one label in one relation are in one group,
    whatever the others say: the groups are the connected components of all relations together.
    """
    images: list[int] = []
    labels: list[int] = []
    numbers: dict[tuple[int, Hashable], int] = {}
    for kind, relation in enumerate(relations):
        for image, label in enumerate(relation):
            if label is not None:
                images.append(image)
                labels.append(count + numbers.setdefault((kind, label), len(numbers)))
    size = count + len(numbers)
    graph = coo_array((np.ones(len(images), dtype=np.int8), (images, labels)), shape=(size, size))
    components = connected_components(graph, directed=False)[1][:count] if size else np.zeros(0, dtype=np.int32)
    _, first, inverse = np.unique(components, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse.reshape(-1)]


def pattern_groups(records: Sequence[Record], pattern: str) -> list[str | None]:
    """What the one group of the regular expression ``pattern`` finds in the path of each image.

    None where the group takes no part in the match, for an image of its own. Raises DataError if the pattern fits
    an image nowhere: a patient that is missed in silence would stand on both sides of a split.
    """
    compiled = re.compile(pattern)
    found = [compiled.search(record.image) for record in records]
    missed = [printable(record.image) for record, match in zip(records, found, strict=True) if match is None]
    if missed:
        shown = "".join(f"\n  {name}" for name in missed[:20]) + ("\n  ..." if len(missed) > 20 else "")
        raise DataError(
            f"data.groups = {pattern!r}: does not fit {len(missed)} of {len(records)} images; widen it (for images "
            f"that are alone: '{pattern}|$'):{shown}"
        )
    return [match[1] for match in found if match is not None]


def read_groups(root: Path, records: Sequence[Record], problems: Problems) -> list[str | None]:
    """The group of each record by groups.csv in ``root``; None for an image that it does not list, and without it.

    A line that does not fit goes to ``problems``. Raises DataError if the file is no such table.
    """
    path = root / FILE
    if not path.exists() and not path.is_symlink():
        return [None] * len(records)
    known = {record.image for record in records}
    found: dict[str, str] = {}
    for line, row in read_table(path, COLUMNS, COLUMNS, problems):
        where = f"{FILE}, line {line}"
        try:
            resolve_inside(root, row["image"])
        except DataError as error:
            problems.add("row that cannot be used", f"{where}: {error}")
            continue
        if row["image"] not in known:
            problems.add("row that cannot be used", f"{where}: {row['image']!r} is no image of the data set")
        elif row["image"] in found:
            problems.add("row that cannot be used", f"{where}: {row['image']!r} stands twice")
        elif not row["group"]:
            problems.add("row that cannot be used", f"{where}: no group for {row['image']!r}")
        else:
            found[row["image"]] = row["group"]
    return [found.get(record.image) for record in records]
