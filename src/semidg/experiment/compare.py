"""Runs a grid: done runs are skipped, half-done ones resumed, failed ones reported while the others go on."""

from __future__ import annotations

import contextlib
import csv
import io
import shutil
import signal
import statistics
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from semidg.config_file import dump_config
from semidg.errors import ConfigError, RunError
from semidg.experiment.executors import Executor, Job
from semidg.experiment.grid import Cell, differing_keys
from semidg.experiment.run import ORIGIN, abandoned, open_config
from semidg.files import read_json, write_text

Part = Literal["test", "validation"]
State = Literal["done", "half-done", "left"]

_PAUSE = 0.2  # seconds between two looks at the children


@dataclass(frozen=True)
class Status:
    """How far a run is; ``seconds`` is the training time so far, over all resumptions."""

    state: State
    step: int = 0
    seconds: float = 0.0


@dataclass
class Outcome:
    """What ``run_grid`` leaves: failed runs with the reason, and the signal that stopped it."""

    failed: dict[str, str] = field(default_factory=dict)
    signal: int | None = None


class Watcher(Protocol):
    """Somebody who watches a grid."""

    def started(self, cell: Cell) -> None:
        """A run is begun or resumed."""

    def ended(self, cell: Cell, error: str | None) -> None:
        """A run has ended, with its scores or with an error; runs.csv knows of it."""

    def tick(self, running: Sequence[str]) -> None:
        """Time passes."""


def run_folder(out: Path, cell: Cell) -> Path:
    """OUT/runs/NAME."""
    return out / "runs" / cell.name


def scores_folder(run: Path, part: Part) -> Path:
    """Where a run folder has cases.csv and summary.json of a part."""
    return run if part == "test" else run / "parts" / part


def status(cell: Cell, out: Path, part: Part = "test") -> Status:
    """How far a run is; done means trained to the end and scored on ``part``."""
    run = run_folder(out, cell)
    step, seconds = _course(run / "metrics.csv")
    summary = read_json(scores_folder(run, part) / "summary.json")
    last = (summary.get("checkpoints") or {}).get("last") or {}
    if last.get("step") == cell.config.trainer.max_steps:
        return Status("done", last["step"], summary.get("training_seconds") or seconds)
    return Status("half-done" if (run / "run.json").is_file() else "left", step, seconds)


def refuse_other_configurations(cells: Sequence[Cell], out: Path) -> None:
    """Raises RunError with a line for each run folder that holds another configuration than the grid's."""
    problems = []
    for cell in cells:
        run = run_folder(out, cell)
        if (run / "run.json").is_file():
            if keys := differing_keys(open_config(run), cell.config):
                problems.append(
                    f"{run}: was trained with another configuration (it differs in {', '.join(keys)}); delete the "
                    "folder, or choose another --out"
                )
        elif run.is_dir() and not abandoned(run) and any(run.iterdir()):
            problems.append(f"{run}: is no run folder and not empty; delete it, or choose another --out")
    if problems:
        raise RunError("\n".join(problems))


def refuse_without_part(cells: Sequence[Cell], part: Part) -> None:
    """Raises ConfigError where runs would have no validation part to score."""
    for cell in cells if part == "validation" else ():
        split = cell.config.data.split
        if split.protocol == "published" or (not split.validation and split.lists is None):
            raise ConfigError(
                f"{cell.name}: its split has no validation part (data.split.protocol {split.protocol}, "
                f"data.split.validation {split.validation:g}); leave --part out, or change the split"
            )


def run_grid(
    cells: Sequence[Cell], out: Path, executor: Executor, part: Part = "test", watcher: Watcher | None = None
) -> Outcome:
    """Make every run that is not done, scored on ``part``; SIGTERM, Ctrl-C and a lost terminal stop it in good order.

    A first signal lets the runs write their checkpoints, a second one ends them at once. Keeps OUT/runs.csv.
    """
    refuse_other_configurations(cells, out)
    book = Book(cells, out, part)
    queue = deque(cell for cell in cells if status(cell, out, part).state != "done")
    names = {cell.name: cell for cell in cells}
    outcome = Outcome()
    since: dict[str, float] = {}
    book.write(outcome.failed)
    with executor, _signals() as asked:
        told = 0
        while executor.running() or (queue and not asked):
            while queue and not asked and len(executor.running()) < executor.slots:
                cell = queue.popleft()
                since[cell.name] = time.monotonic()
                executor.start(_job(cell, out, part))
                if watcher:
                    watcher.started(cell)
            if watcher:
                watcher.tick(executor.running())
            for name, code in executor.ended(_PAUSE):
                book.seconds[name] = book.seconds.get(name, 0.0) + time.monotonic() - since[name]
                error = _error(names[name], out, part, code)
                if error and not asked:
                    outcome.failed[name] = error
                book.write(outcome.failed)
                if watcher and (not asked or error is None):
                    watcher.ended(names[name], error)
            if len(asked) > told:
                told = len(asked)
                executor.stop(kill=told > 1)
    outcome.signal = asked[0] if asked else None
    return outcome


_COLUMNS = (
    *("run", "arm", "labelled", "target", "seed", "state", "step", "steps", "seconds", "training_seconds"),
    *("threads", "device", "precision", "commit", "error"),
)


class Book:
    """OUT/runs.csv: a row a run, with the wall time it has taken over all starts.

    Behind them stand, as they were, the rows of runs that are not of this grid, but still have their folders.
    """

    def __init__(self, cells: Sequence[Cell], out: Path, part: Part) -> None:
        self.cells, self.out, self.part = cells, out, part
        self.seconds = wall_seconds(out)
        names = {cell.name for cell in cells}
        self.others = [row for row in _book_rows(out) if row["run"] not in names and _has_folder(out, row["run"])]

    def write(self, failed: Mapping[str, str]) -> None:
        """Write the states as they are now."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for cell in self.cells:
            now = status(cell, self.out, self.part)
            made = read_json(run_folder(self.out, cell) / "environment.json")
            writer.writerow(
                [
                    *(cell.name, cell.arm, f"{cell.labelled:g}", cell.target or "", cell.seed),
                    *("failed" if cell.name in failed else now.state, now.step, cell.config.trainer.max_steps),
                    *(f"{self.seconds.get(cell.name, 0.0):.3f}", f"{now.seconds:.3f}"),
                    *(made.get(name) or "" for name in ("threads", "device", "precision", "commit")),
                    failed.get(cell.name, ""),
                ]
            )
        writer.writerows([row.get(name, "") for name in _COLUMNS] for row in self.others)
        write_text(self.out / "runs.csv", buffer.getvalue())


def wall_seconds(out: Path) -> dict[str, float]:
    """Run -> wall time in OUT/runs.csv; nothing where there is none."""
    found = {}
    with contextlib.suppress(ValueError):
        for row in _book_rows(out):
            found[row["run"]] = float(row["seconds"])
    return found


def _book_rows(out: Path) -> list[dict[str, str]]:
    with contextlib.suppress(OSError, ValueError), (out / "runs.csv").open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        if {"run", "seconds"} <= {*(rows.fieldnames or ())}:
            return [*rows]
    return []


def _has_folder(out: Path, name: str) -> bool:
    return name == Path(name).name and (out / "runs" / name / "run.json").is_file()


def seconds_left(cells: Sequence[Cell], out: Path, part: Part = "test", slots: int = 1) -> float | None:
    """What the runs that are not done will take, by the wall time a step of those made here; None if none is measured.

    An arm is measured by its done runs, else by the training time of its half-done ones, else by runs taken over from
    another machine, as many times as long as the arms that both have took here, else by the mean of all arms.
    """
    now = {cell.name: status(cell, out, part) for cell in cells}
    wall = wall_seconds(out)
    done, begun, elsewhere = (defaultdict[str, list[float]](list) for _ in range(3))
    for cell in cells:
        at = now[cell.name]
        if at.state == "done":
            foreign = ORIGIN in read_json(run_folder(out, cell) / "environment.json")
            seconds = max(wall.get(cell.name, 0.0), at.seconds)
            (elsewhere if foreign else done)[cell.arm].append(seconds / cell.config.trainer.max_steps)
        elif at.step:
            begun[cell.arm].append(at.seconds / at.step)
    rest = [cell for cell in cells if now[cell.name].state != "done"]
    if not rest:
        return 0.0
    here = {arm: statistics.mean(values) for arm, values in (begun | done).items()}
    if not here:
        return None
    there = {arm: statistics.mean(values) for arm, values in elsewhere.items()}
    if both := here.keys() & there.keys():
        slower = sum(here[arm] for arm in both) / sum(there[arm] for arm in both)
        here = {arm: slower * seconds for arm, seconds in there.items()} | here
    mean = statistics.mean(here.values())
    steps = [(cell.arm, max(1, cell.config.trainer.max_steps - now[cell.name].step)) for cell in rest]
    return sum(here.get(arm, mean) * count for arm, count in steps) / min(slots, len(rest))


def last_line(log: Path) -> str:
    """The last line of a log with something in it."""
    with contextlib.suppress(OSError):
        lines = [line.strip() for line in log.read_text("utf-8", errors="replace").splitlines()]
        return next((line for line in reversed(lines) if line), "")
    return ""


def _job(cell: Cell, out: Path, part: Part) -> Job:
    run = run_folder(out, cell)
    start: tuple[str, ...]
    if (run / "run.json").is_file():
        start = ("--resume",)
    else:
        if abandoned(run):
            shutil.rmtree(run)
        config = out / "configs" / f"{cell.name}.yaml"
        write_text(config, dump_config(cell.config))
        start = ("--config", str(config))
    return Job(cell.name, ("train", *start, "--out", str(run), "--score", part), out / "logs" / f"{cell.name}.log")


def _error(cell: Cell, out: Path, part: Part, code: int) -> str | None:
    if code == 0 and status(cell, out, part).state == "done":
        return None
    log = out / "logs" / f"{cell.name}.log"
    how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    return f"{last_line(log) or 'no output'} ({how}; {log})"


def _course(metrics: Path) -> tuple[int, float]:
    """Steps and seconds in the last whole row of metrics.csv."""
    with contextlib.suppress(OSError, ValueError), metrics.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("seconds")]
        if rows:
            return int(rows[-1]["step"]), float(rows[-1]["seconds"])
    return 0, 0.0


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """The signals that asked for a stop so far; handlers are afterwards what they were."""
    asked: list[int] = []
    hang_up = getattr(signal, "SIGHUP", signal.SIGTERM)  # the terminal is gone, and nohup may have made that nothing
    numbers = [n for n in {signal.SIGTERM, signal.SIGINT, hang_up} if signal.getsignal(n) is not signal.SIG_IGN]
    old = [signal.getsignal(number) for number in numbers]
    with contextlib.suppress(ValueError):  # not the main thread: the caller handles signals
        for number in numbers:
            signal.signal(number, lambda number, _: asked.append(number))
    try:
        yield asked
    finally:
        with contextlib.suppress(ValueError):
            for number, handler in zip(numbers, old, strict=True):
                signal.signal(number, handler)
