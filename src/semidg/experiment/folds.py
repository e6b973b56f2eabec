"""Trainings over folds: each image with a mask is predicted by networks that saw neither it nor a twin of it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from semidg.config import ExperimentConfig
from semidg.config_file import dump_config
from semidg.data.draw import Stratum, make_groups
from semidg.data.index import Index, read_index, write_index
from semidg.data.lists import Split, read_split, write_split
from semidg.data.splits import make_split
from semidg.errors import ConfigError, RunError, SemidgError, SplitError
from semidg.experiment.prepare import Report
from semidg.experiment.run import RUN_FORMAT, train
from semidg.files import write_error, write_text
from semidg.types import Record


def make_folds(records: Sequence[Record], folds: int, seed: int) -> list[tuple[Record, ...]]:
    """Divide ``records`` into ``folds`` parts by whole groups, stratified by domain and class; none of them is empty.

    In the order of their size, then at random with ``seed``, the groups that hold a mask go to the fold with the
    fewest masks of their stratum, of these to the one with the fewest at all. A group without a mask is in no fold.
    The order of the records does not matter. Raises ConfigError for fewer than 2 folds, SplitError for more folds than
    groups with a mask.
    """
    if folds < 2:
        raise ConfigError(f"folds = {folds}: at least 2 are needed, so that there is something to train on")
    groups = [group for group in make_groups(sorted(records, key=lambda r: r.id)) if group.masked]
    if len(groups) < folds:
        raise SplitError(
            f"{folds} folds of {len(groups)} group(s) of images with a mask cannot be made; choose fewer folds"
        )

    def order(name: str) -> bytes:
        return hashlib.sha256(f"{seed}\0folds\0{name}".encode("utf-8", "surrogatepass")).digest()

    members: list[list[Record]] = [[] for _ in range(folds)]
    strata: list[Counter[Stratum]] = [Counter() for _ in range(folds)]
    for group in sorted(groups, key=lambda g: (-len(g.masked), order(g.name))):
        fold = min(range(folds), key=lambda k: (strata[k][group.stratum], strata[k].total(), k))
        members[fold] += group.records
        strata[fold][group.stratum] += len(group.masked)
    return [tuple(sorted(part, key=lambda r: r.id)) for part in members]


def fold_splits(config: ExperimentConfig, index: Index, folds: int) -> list[Split]:
    """The split of each fold: its images with a mask are the test part, of all others every mask is a label, but for
    ``data.split.validation`` of them; images without a mask are unlabelled, or left out beside a twin in the fold."""
    alone = fold_config(config, index)
    splits = []
    for number, part in enumerate(make_folds(index.records, folds, config.data.split.seed), start=1):
        inside = {record.id for record in part}
        rest = make_split(
            [r for r in index.records if r.id not in inside], alone.data.split, alone.labelled, config.seed
        )
        meta = rest.meta | {"fold": number, "folds": folds}
        meta["left_out"] = meta["left_out"] | {"without mask, in the fold": [r.id for r in part if not r.labelled]}
        splits.append(replace(rest, test=tuple(r for r in part if r.labelled), meta=meta))
    return splits


def fold_config(config: ExperimentConfig, index: Index) -> ExperimentConfig:
    """What of a configuration its folds are trained with: a division by groups, every mask a label, no target."""
    split = config.data.split.model_copy(
        update={"protocol": "grouped", "test": 0.0, "target": None, "reserve": 0.0, "oracle": False, "lists": None}
    )
    data = config.data.model_copy(update={"root": index.root.resolve(), "more_roots": (), "split": split})
    return config.model_copy(update={"data": data, "labelled": 1.0})


def train_folds(
    config: ExperimentConfig, index: Index, folds: int, out: Path, progress: Report | None = None
) -> list[tuple[Path, Split]]:
    """Train a fold after the other into OUT/fold-1, OUT/fold-2, ...; return each run folder with its split.

    What is there already is taken up: a finished fold is not trained again, one that was killed goes on bit for bit.
    Raises RunError for a folder made from other data, with another number of folds or another configuration.
    """
    made = []
    alone = fold_config(config, index)
    for number, split in enumerate(fold_splits(config, index, folds), start=1):
        run = out / f"fold-{number}"
        begun = (run / "run.json").is_file()
        if begun:
            _refuse_other_data(run, index, split)
        else:
            _begin(run, alone, index, split)
        listener = _Steps(progress, f"training fold {number} of {folds}") if progress else None
        try:
            train(alone, run, resume=True, report=progress, listener=listener, score=None)
        except BaseException:
            if not begun and not (run / "checkpoints" / "last.pt").is_file():
                shutil.rmtree(run, ignore_errors=True)  # a wrong configuration should not hold the place
            raise
        made.append((run, split))
    return made


def _begin(run: Path, config: ExperimentConfig, index: Index, split: Split) -> None:
    """A run folder in which nothing is trained yet, complete or not at all: its index and split are the given ones."""
    new = run.parent / f".{run.name}.new"
    try:
        shutil.rmtree(new, ignore_errors=True)  # of a process that was killed
        write_index(index, new / "index.csv")
        write_split(split, index.root, new / "split")
        write_text(new / "config.yaml", dump_config(config))
        write_text(new / "run.json", json.dumps({"format": RUN_FORMAT}) + "\n")
        new.replace(run)
    except OSError as error:
        if run.exists():
            raise RunError(f"{run}: is no run folder and not empty; delete it, or choose another --out") from error
        raise write_error(run, error) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _refuse_other_data(run: Path, index: Index, split: Split) -> None:
    try:
        stored = read_index(run / "index.csv", index.root).records
        parts = read_split(run / "split", stored, index.root).parts()
    except SemidgError as error:
        raise RunError(f"{run}: damaged, or of other data ({error}); delete it, or choose another --out") from error
    if stored != index.records or parts != split.parts():
        raise RunError(
            f"{run}: was trained on other images or with another number of folds; choose another --out, or delete it"
        )


class _Steps:
    """A listener of a training that passes its steps on as progress."""

    def __init__(self, progress: Report, what: str) -> None:
        self.progress, self.what, self.total = progress, what, 0

    def begin(self, step: int, total: int) -> None:
        self.total = total
        self.progress(self.what, step, total)

    def step(self, step: int) -> None:
        self.progress(self.what, step, self.total)

    def row(self, row: dict[str, float]) -> None: ...
