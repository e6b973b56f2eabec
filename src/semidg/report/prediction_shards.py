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
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from semidg.data.frames import Axis
from semidg.errors import DataError
from semidg.experiment.bundle import Bundle, load_bundle
from semidg.files import write_text
from semidg.report.prediction_jobs import Job
from semidg.report.predictions import Predicted, Prediction, predict_files, write_table

_NOTES = ".predict"


@dataclass(frozen=True)
class Settings:
    """What a prediction depends on beside its image; the arguments of ``predict_files``."""

    model: Path
    confidence: Literal["probability", "variance"] = "probability"
    refer_below: float = 0.0
    slice_axis: Axis = "auto"
    batch: int = 16
    threads: int = 2
    device: str = "cpu"

    def folder(self, out: Path) -> Path:
        """Where the notes of these settings are. Raises DataError where the model cannot be read."""
        try:
            model = hashlib.sha256(self.model.read_bytes()).hexdigest()
        except OSError as error:
            raise DataError(f"{self.model}: cannot be read ({error.strerror})") from error
        text = json.dumps([model, self.confidence, self.refer_below, self.slice_axis])
        return out / _NOTES / hashlib.sha256(text.encode()).hexdigest()[:16]


class Run(Protocol):
    """Computes ``work`` of each shard somewhere; gives (shard, error or None) as they are done."""

    def __call__(self, work: Callable[[int], None], count: int) -> Iterator[tuple[int, str | None]]: ...


def one_by_one(work: Callable[[int], None], count: int) -> Iterator[tuple[int, str | None]]:
    """In this process."""
    for number in range(count):
        work(number)
        yield number, None


def predict_shards(
    settings: Settings,
    jobs: Sequence[Job],
    out: Path,
    *,
    run: Run = one_by_one,
    resume: bool = False,
    size: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> Predicted:
    """``predict_files`` of all jobs in shards of ``size``, and one OUT/predictions.csv of them.

    resume: images that are noted as done by the same model with the same options, have not changed since, and whose
    results are all there, are not computed again. A shard that could not be computed is one problem.
    """
    notes = settings.folder(out)
    for other in (out / _NOTES).glob("*"):
        if other != notes:
            shutil.rmtree(other, ignore_errors=True)
    known = _done(notes, out) if resume else {}
    rows: list[Prediction] = []
    left: list[Job] = []
    for job in (job._replace(target=job.target.absolute()) for job in jobs):
        entry = known.get(_key(job, out))
        if entry is not None and entry["stamp"] == _stamp(job.image):
            rows += [Prediction(*row) for row in entry["rows"]]
        else:
            left.append(job)
    shards = [left[k : k + size] for k in range(0, len(left), size)]
    paths = [
        notes / f"{hashlib.sha256(repr([_key(j, out) for j in shard]).encode()).hexdigest()[:16]}.json"
        for shard in shards
    ]
    for path in paths:
        path.unlink(missing_ok=True)
    work = Shards(settings, shards, out.absolute(), [path.absolute() for path in paths])
    problems: list[str] = []
    done = files = len(jobs) - len(left)
    for number, error in run(work, len(shards)):
        if error is None:
            note = json.loads(paths[number].read_text("utf-8"))
            rows += [Prediction(*row) for entry in note["done"].values() for row in entry["rows"]]
            rows += [Prediction(*row) for row in note["others"]]
            problems += note["problems"]
            files += note["files"]
        else:
            first, last = shards[number][0].image, shards[number][-1].image
            problems.append(f"{first} to {last}: not predicted ({error}); continue with --resume")
        done += len(shards[number])
        if progress:
            progress(done, len(jobs))
    if rows:
        write_table(rows, out / "predictions.csv")
    return Predicted(rows, problems, files)


@dataclass(frozen=True)
class Shards:
    """Computes a shard by its number, in any process that sees the same files."""

    settings: Settings
    shards: Sequence[Sequence[Job]]
    out: Path
    notes: Sequence[Path]

    def __call__(self, number: int) -> None:
        """Predict a shard and write its note."""
        s, jobs = self.settings, self.shards[number]
        rows, problems, files = predict_files(
            _bundle(s.model),
            jobs,
            self.out,
            torch.device(s.device),
            batch=s.batch,
            threads=s.threads,
            confidence=s.confidence,
            refer_below=s.refer_below,
            slice_axis=s.slice_axis,
            table=False,
        )
        found: dict[str, list[Prediction]] = {_key(job, self.out): [] for job in jobs}
        for row in rows:  # scan_2_mask.png is of scan_2, not of scan
            own = [key for key in found if row.mask.startswith(f"{key}_")]
            found[max(own, key=len)].append(row)
        bad = {_key(job, self.out) for job in jobs if any(p.startswith(f"{job.image}:") for p in problems)}
        entries = {
            _key(job, self.out): {
                "stamp": _stamp(job.image),
                "rows": found[_key(job, self.out)],
                "files": _written(found[_key(job, self.out)], self.out),
            }
            for job in jobs
            if _key(job, self.out) not in bad
        }
        others = [row for key in bad for row in found[key]]
        note = {"done": entries, "others": others, "problems": problems, "files": files}
        write_text(self.notes[number], json.dumps(note) + "\n")


@lru_cache(maxsize=1)
def _bundle(model: Path) -> Bundle:
    return load_bundle(model)


def _key(job: Job, out: Path) -> str:
    return job.target.absolute().relative_to(out.absolute()).as_posix()


def _stamp(image: Path) -> list[Any]:
    """What tells that an image is another one than before."""
    try:
        found = image.stat()
    except OSError:
        return [str(image.absolute())]
    return [str(image.absolute()), found.st_size, found.st_mtime_ns]


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
