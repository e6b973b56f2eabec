"""Image files in; masks, confidence maps, overlays and a table with the expected Dice of each image or volume out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, groupby
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch

from semidg.errors import DataError
from semidg.experiment.bundle import Bundle
from semidg.files import atomic_path, write_bytes
from semidg.report.colours import legend_png
from semidg.report.prediction_jobs import Job, Volume, like_frames, pieces
from semidg.report.prediction_lanes import Lanes
from semidg.report.predictor import Found, Options, Prediction, Predictor


class Predicted(NamedTuple):
    """rows: one a predicted image, volume or frame of a film. problems: one line for each file that could not be read.
    files: how many files were predicted."""

    rows: list[Prediction]
    problems: list[str]
    files: int


def predict_files(
    bundle: Bundle, jobs: Sequence[Job], out: Path, device: torch.device, options: Options | None = None
) -> Predicted:
    """Write NAME_mask.png (0 / 255, or class numbers with a palette), NAME_confidence.png and NAME_overlay.png for each
    image, and OUT/predictions.csv, the table of all of them; of several classes also OUT/legend.png, their colours.

    All at the image's own size. Of a volume mask and confidence are NAME_mask.nii.gz and NAME_confidence.nii.gz
    (see ``predicted_volume.py``), of a film each frame has its pictures, NAME_f017_mask.png. Images are read,
    predicted and written in batches, several at once (see ``prediction_lanes.py``), volumes one after the other, so
    memory does not grow with their number. A file that cannot be read is passed over. Rows of images that are not among
    the jobs, of an earlier call, stay in the table.
    """
    (found,) = predict_parts(bundle, [jobs], out, device, options or Options(), like_frames(jobs))
    if found.rows:
        write_table(found.rows, out / "predictions.csv")
    return found


def predict_parts(
    bundle: Bundle,
    parts: Sequence[Sequence[Job]],
    out: Path,
    device: torch.device,
    options: Options,
    taken: frozenset[Path],
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Predicted]:
    """``predict_files`` of each part without the table, in order; the next part is begun before one is done, but no
    batch holds images of two. taken: ``like_frames`` of all parts, also of those that are computed elsewhere. progress:
    called with (files done, files in all)."""
    begins = [0, *accumulate(map(len, parts))]
    with Lanes(options.threads, sum(-(-len(jobs) // options.batch) for jobs in parts), device) as lanes:
        predictor = Predictor(bundle, out, device, options, lanes)
        collected = _Collected()
        for task, found in _results(predictor, _tasks(parts, options, taken)):
            collected.add(task, found)
            if progress:
                progress(begins[task.part] + task.done, begins[-1])
            if task.last:
                yield collected.all_of(bundle, out)
                collected = _Collected()


class _Task(NamedTuple):
    """A batch of images, or a volume. done: files of the part begun until then. problems: of headers before it."""

    part: int
    done: int
    work: list[Job] | Volume
    problems: list[str]
    last: bool = False


def _tasks(parts: Sequence[Sequence[Job]], options: Options, taken: frozenset[Path]) -> Iterator[_Task]:
    for number, jobs in enumerate(parts):
        problems: list[str] = []
        task: _Task | None = None
        for done, work in pieces(jobs, options.batch, options.slice_axis, options.orientation, problems, taken):
            if task is not None:
                yield task
            task = _Task(number, done, work, [*problems])
            problems.clear()
        yield (task or _Task(number, 0, [], []))._replace(last=True)


def _results(predictor: Predictor, tasks: Iterator[_Task]) -> Iterator[tuple[_Task, Found]]:
    """In order: batches in the lanes, several at once; volumes one after the other, each in all the lanes."""

    def predict(task: _Task) -> tuple[_Task, Found]:
        if isinstance(task.work, Volume):
            return task, predictor.volume(task.work)
        return task, predictor.images(task.work)

    for alone, some in groupby(tasks, lambda task: isinstance(task.work, Volume)):
        if alone:
            yield from map(predict, some)
        else:
            yield from predictor.lanes.in_order(predict, some)


class _Collected:
    """What was found of a part so far."""

    def __init__(self) -> None:
        self.rows: list[Prediction] = []
        self.problems: list[str] = []
        self.files: set[Path] = set()

    def add(self, task: _Task, found: Found) -> None:
        self.rows += [row for _, row in found.rows]
        self.files.update(job.image for job, _ in found.rows)
        self.problems += [*task.problems, *found.problems]

    def all_of(self, bundle: Bundle, out: Path) -> Predicted:
        if self.rows and bundle.network.classes > 2:
            write_bytes(out / "legend.png", legend_png(bundle.network.names))
        problems = list(dict.fromkeys(self.problems))  # of a film the same for each frame
        return Predicted(self.rows, problems, len(self.files))


def write_table(rows: Sequence[Prediction], path: Path) -> None:
    """predictions.csv, sorted by expected Dice, least certain first; rows of other masks in it are kept."""
    table = pd.DataFrame(rows, columns=list(Prediction._fields))
    try:
        old = pd.read_csv(path, keep_default_na=False)[list(Prediction._fields)]
    except FileNotFoundError:
        old = table.iloc[:0]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: exists, but is no table of predictions; choose another --out") from error
    kept = old[~old["mask"].isin(table["mask"])]
    if len(kept):
        table = pd.concat([kept, table], ignore_index=True)
    table = table.sort_values(["expected_dice", "mask"], kind="stable")
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6f")
