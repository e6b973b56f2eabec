"""The scored cases of a run, found again in its data: images and masks, and which plane of a volume to show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from semidg.data.index import Index, read_index
from semidg.data.lists import read_split
from semidg.data.reading import record_image, record_mask
from semidg.errors import DataError
from semidg.experiment.cases import Case, cases_of
from semidg.report.runs import Run
from semidg.types import IGNORE_INDEX, Record


def scored_cases(run: Run, root: Path | None) -> tuple[Index, dict[str, Case]]:
    """The cases of cases.csv by id, and the index that says where their files are.

    root: where the data are now, by default where they were scored. Raises DataError where the data are not there or
    lack a case.
    """
    config, elsewhere = run.config.data, run.elsewhere
    more_roots = () if root or elsewhere else config.more_roots
    layout = run.summary.get("layout", "auto") if elsewhere else config.layout
    root = root or (Path(run.summary["root"]) if elsewhere else config.root)
    if root is None or not root.exists():
        raise DataError(f"{run.path}: its images are not at {root}; say where they are with --root FOLDER")
    path = (run.path if elsewhere else run.folder) / "index.csv"
    index = read_index(path, root, more_roots, layout)
    records: Sequence[Record] = index.records
    if not elsewhere and any(record.volume for record in records):  # scored on those of its planes in the part
        records = read_split(run.folder / "split", records, index.root).parts()[run.summary.get("part", "test")]
    scored = set(run.cases["id"])
    cases = {case.id: case for case in cases_of(records) if case.id in scored}
    if lacking := sorted(scored - set(cases)):
        raise DataError(f"{path}: has no image {lacking[0]!r}, which was scored")
    return index, cases


def shown_plane(run: Run, index: Index, case: Case) -> Record:
    """The plane with the largest true area, of equal ones the first; the middle one where there is nothing to find."""
    if not case.is_volume:
        return case.planes[0]
    truths = (record_mask(index.root, plane, run.config.network.classes) for plane in case.planes)
    areas = [np.count_nonzero((truth > 0) & (truth != IGNORE_INDEX)) for truth in truths]
    return case.planes[int(np.argmax(areas)) if any(areas) else len(areas) // 2]


def read_pair(run: Run, index: Index, record: Record) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.integer[Any]]]:
    """Image and true label map; raises DataError where they differ in size."""
    image = record_image(index.root, record, run.config.data.channels)
    truth = record_mask(index.root, record, run.config.network.classes)
    if image.shape[:2] != truth.shape:
        raise DataError(f"{index.root / record.image}: is {image.shape[:2]}, its mask {truth.shape}; mend the data")
    return image, truth
