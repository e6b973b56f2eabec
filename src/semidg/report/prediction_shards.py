"""Prediction of many files in shards, each with a note of what is done: resumable, and for several machines at once.

OUT/.predict/SETTINGS/SHARD.json holds the rows of a shard's images and what was written for them. It is written after
them, whole or not at all. SETTINGS is a checksum of the model and of the options; notes of others are removed, as what
they describe may be overwritten.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import torch

from semidg.data.voxels import stamp
from semidg.errors import DataError
from semidg.experiment.bundle import Bundle, load_bundle
from semidg.files import write_text
from semidg.report.prediction_jobs import Job, like_frames
from semidg.report.predictions import Predicted, predict_parts, write_table
from semidg.report.predictor import Options, Prediction

_NOTES = ".predict"


@dataclass(frozen=True)
class Settings:
    """What a prediction depends on beside its image."""

    model: Path
    options: Options = field(default_factory=Options)
    device: str = "cpu"

    def folder(self, out: Path) -> Path:
        """Where the notes of these settings are. Raises DataError where the model cannot be read."""
        try:
            model = hashlib.sha256(self.model.read_bytes()).hexdigest()
        except OSError as error:
            raise DataError(f"{self.model}: cannot be read ({error.strerror})") from error
        of = self.options
        more = ["masks"] * of.masks_only + [of.orientation] * (of.orientation != "stored")
        text = json.dumps([model, of.confidence, of.refer_below, of.slice_axis, *more])
        return out / _NOTES / hashlib.sha256(text.encode()).hexdigest()[:16]


class Run(Protocol):
    """Computes each of the shards somewhere; gives (its number, error or None) as they are done."""

    def __call__(self, work: Sequence[Callable[[], None]]) -> Iterator[tuple[int, str | None]]: ...


def predict_shards(
    settings: Settings,
    jobs: Sequence[Job],
    out: Path,
    *,
    run: Run | None = None,
    resume: bool = False,
    size: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> Predicted:
    """``predict_files`` of all jobs in shards of ``size``, and one OUT/predictions.csv of them.

    run: where; None is this process, which begins with the next shard before one is done. resume: images that are noted
    as done by the same model with the same options, have not changed since, and whose results are all there, are not
    computed again. A shard that could not be computed is one problem.
    """
    notes = settings.folder(out)
    for other in (out / _NOTES).glob("*"):
        if other != notes:
            shutil.rmtree(other, ignore_errors=True)
    known = _done(notes, out) if resume else {}
    rows: list[Prediction] = []
    jobs = [job._replace(target=job.target.absolute()) for job in jobs]
    # shards as in a call without resume: the same batches
    left: list[list[Job]] = [[] for _ in range(0, len(jobs), size)]
    for number, job in enumerate(jobs):
        entry = known.get(_key(job, out))
        if entry is not None and entry["stamp"] == _stamp(job):
            rows += [Prediction(*row) for row in entry["rows"]]
        else:
            left[number // size].append(job)
    taken, parts = like_frames(jobs), [part for part in left if part]
    work = [
        Shard(settings, part, out.absolute(), notes.absolute(), taken, [_stamp(job) for job in part]) for part in parts
    ]
    for shard in work:
        shard.note.unlink(missing_ok=True)
    problems: list[str] = []
    done = files = len(jobs) - sum(map(len, parts))
    here = _here(work, lambda count, _: progress(done + count, len(jobs)) if progress else None)
    for number, error in here if run is None else run(work):
        shard = work[number]
        if error is None:
            note = json.loads(shard.note.read_text("utf-8"))
            rows += [Prediction(*row) for entry in note["done"].values() for row in entry["rows"]]
            rows += [Prediction(*row) for row in note["others"]]
            problems += note["problems"]
            files += note["files"]
        else:
            first, last = shard.jobs[0].image, shard.jobs[-1].image
            problems.append(f"{first} to {last}: not predicted ({error}); continue with --resume")
        if run is not None:
            done += len(shard.jobs)
            if progress:
                progress(done, len(jobs))
    if rows:
        write_table(rows, out / "predictions.csv")
    return Predicted(rows, problems, files)


@dataclass(frozen=True)
class Shard:
    """Some of the images; computed in any process that sees the same files."""

    settings: Settings
    jobs: Sequence[Job]
    out: Path
    notes: Path
    taken: frozenset[Path]
    """Of all shards, see ``prediction_jobs.pieces``."""
    stamps: Sequence[list[Any]]
    """Of the jobs as they were before any was begun: an image that changes meanwhile is computed again."""

    @property
    def note(self) -> Path:
        """Where it is noted what was done."""
        keys = repr([_key(job, self.out) for job in self.jobs])
        return self.notes / f"{hashlib.sha256(keys.encode()).hexdigest()[:16]}.json"

    def __call__(self) -> None:
        """Predict the images and write the note."""
        for _ in _here([self]):
            pass

    def write_note(self, predicted: Predicted) -> None:
        """After all results of the shard: a note says that they are there."""
        rows, problems, files = predicted
        found: dict[str, list[Prediction]] = {_key(job, self.out): [] for job in self.jobs}
        for row in rows:  # scan_2_mask.png is of scan_2, not of scan
            own = [key for key in found if row.mask.startswith(f"{key}_")]
            found[max(own, key=len)].append(row)
        bad = {_key(job, self.out) for job in self.jobs if any(p.startswith(f"{job.image}:") for p in problems)}
        entries = {
            _key(job, self.out): {
                "stamp": stamp,
                "rows": found[_key(job, self.out)],
                "files": _written(found[_key(job, self.out)], self.out),
            }
            for job, stamp in zip(self.jobs, self.stamps, strict=True)
            if _key(job, self.out) not in bad
        }
        others = [row for key in bad for row in found[key]]
        note = {"done": entries, "others": others, "problems": problems, "files": files}
        write_text(self.note, json.dumps(note) + "\n")


def _here(
    shards: Sequence[Shard], progress: Callable[[int, int], None] | None = None
) -> Iterator[tuple[int, str | None]]:
    """Compute shards of the same settings in this process."""
    if not shards:
        return
    settings = shards[0].settings
    parts = [shard.jobs for shard in shards]
    device = torch.device(settings.device)
    found = predict_parts(
        _bundle(settings.model), parts, shards[0].out, device, settings.options, shards[0].taken, progress
    )
    for number, predicted in enumerate(found):
        shards[number].write_note(predicted)
        yield number, None


@lru_cache(maxsize=1)
def _bundle(model: Path) -> Bundle:
    return load_bundle(model)


def _key(job: Job, out: Path) -> str:
    return job.target.absolute().relative_to(out.absolute()).as_posix()


def _stamp(job: Job) -> list[Any]:
    """What tells that an image, or a file of a series, is another one than before."""
    found: list[Any] = []
    for image in job.series or (job.image,):
        found.append(str(image.absolute()))
        with suppress(OSError):
            found += stamp(image)
    return found


def _written(rows: Sequence[Prediction], out: Path) -> dict[str, int]:
    """File -> size in bytes of all that belongs to the masks of the rows."""
    sizes = {}
    for row in rows:
        head, _, ending = row.mask.rpartition("_mask.")
        for name in (f"mask.{ending}", f"confidence.{ending}", "overlay.png"):
            path = out / f"{head}_{name}"
            if path.is_file():
                sizes[path.relative_to(out).as_posix()] = path.stat().st_size
    return sizes


def _done(notes: Path, out: Path) -> dict[str, dict[str, Any]]:
    """Key -> entry of the images whose results are all there; a note that cannot be read says nothing."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(notes.glob("*.json")):
        try:
            entries = json.loads(path.read_text("utf-8"))["done"]
            for key, entry in entries.items():
                sizes = {name: (out / name).stat().st_size for name in entry["files"]}
                if entry["files"] and sizes == entry["files"]:
                    found[key] = entry
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return found
