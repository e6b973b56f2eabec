"""From a configuration to records, split and cached images; a run folder keeps what was decided."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from semidg.config import ExperimentConfig
from semidg.data.dataset import ImageCache, open_cache
from semidg.data.index import Index, index_data, read_index, write_index
from semidg.data.lists import read_split, write_split
from semidg.data.paths import Problems
from semidg.data.reading import record_mask
from semidg.data.splits import Split, make_split
from semidg.errors import ConfigError, DataError
from semidg.experiment.cases import Case, cases_of
from semidg.types import IGNORE_INDEX

#: Called with (what is being done, done, of how many).
Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Prepared:
    """Everything about the data that training and evaluation need."""

    index: Index
    split: Split
    cache: ImageCache


def prepare(config: ExperimentConfig, run: Path | None = None, report: Report | None = None) -> Prepared:
    """Index the data, split it, decode it once.

    A run folder that already has split/ decides the records and the split: a resumed run, or an evaluation, sees the
    division it was trained with, whatever has been added to the data since.
    """
    data = config.data
    if data.root is None:
        raise ConfigError("data.root is not set; say where the data set is: --data.root FOLDER")
    if run is not None and (run / "split").is_dir():
        index = read_index(run / "index.csv", data.root, data.more_roots, data.layout)
        split = read_split(run / "split", index.records, index.root)
    else:
        index = index_data(data, config.network.classes, progress=_named(report, "indexing"))
        if data.split.lists is not None:
            target = None if data.split.oracle else data.split.target
            split = read_split(data.split.lists, index.records, index.root, target)
        else:
            split = make_split(index.records, data.split, config.labelled, config.seed, index.excluded)
        if run is not None:
            write_index(index, run / "index.csv")
            write_split(split, index.root, run / "split")
    return Prepared(index, split, open_images(config, index, report))


def open_images(config: ExperimentConfig, index: Index, report: Report | None = None) -> ImageCache:
    """The decoded images of all records of an index, at the configured size.

    Raises DataError for each mask without a known pixel at that size: it could not be learnt from.
    """
    data = config.data
    cache = open_cache(
        index.root,
        index.records,
        data.size,
        data.channels,
        config.network.classes,
        folder=data.cache,
        progress=_named(report, "decoding images"),
    )
    if any(record.may_ignore for record in index.records):
        problems = Problems(index.root)
        for case in cases_of([record for record in index.records if record.labelled]):
            if all((cache.masks[cache.row(plane.id)] == IGNORE_INDEX).all() for plane in case.planes):
                problems.add("mask without a known pixel", f"{case.id}: {_unknown(index, case, config)}")
        if problems:
            raise DataError(problems.text())
    return cache


def _unknown(index: Index, case: Case, config: ExperimentConfig) -> str:
    masks = (record_mask(index.root, plane, config.network.classes) for plane in case.planes)
    if all((mask == IGNORE_INDEX).all() for mask in masks):
        return "no pixel of its mask is known: all have values to ignore (data.ignore_label, data.mask_values)"
    return f"none of the known pixels of its mask is left at data.size {config.data.size}; choose a larger one"


def _named(report: Report | None, what: str) -> Callable[[int, int], None] | None:
    return None if report is None else lambda done, total: report(what, done, total)
