"""Progress of a grid: bars of what runs on a terminal, elsewhere a line for each start and end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from semidg.errors import SemidgError
from semidg.experiment.compare import Part, run_folder, scores_folder, seconds_left, status
from semidg.experiment.grid import Cell
from semidg.files import read_json

_BETWEEN_LOOKS = 2.0  # seconds


class GridProgress:
    """A context that watches a grid (``Watcher``); ``tables`` is called after every finished run."""

    def __init__(self, cells: Sequence[Cell], out: Path, part: Part, slots: int, tables: Callable[[], object]) -> None:
        self.cells, self.out, self.part, self.slots, self.tables = cells, out, part, slots, tables
        self.console = Console(stderr=True)
        self.live = self.console.is_terminal
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self.progress = Progress(*columns, console=self.console)
        self.tasks: dict[str, TaskID] = {}
        self.looked = 0.0
        self.finished = self.failed = 0

    def __enter__(self) -> GridProgress:
        done = self._done()
        self.finished = done
        if self.live:
            self.progress.start()
            self.tasks[""] = self.progress.add_task("runs", total=len(self.cells), completed=done, note=self._left())
        else:
            self._say(f"{done} of {len(self.cells)} runs done, {self._left()}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.progress.stop()

    def started(self, cell: Cell) -> None:
        """A run is begun or resumed."""
        if self.live:
            total = cell.config.trainer.max_steps
            self.tasks[cell.name] = self.progress.add_task(cell.name, total=total, note="")
        else:
            self._say(f"started   {cell.name}")

    def ended(self, cell: Cell, error: str | None) -> None:
        """A run has ended; the tables are written again."""
        if self.live:
            self.progress.remove_task(self.tasks.pop(cell.name))
        if error is not None:
            self.failed += 1
            self._say(f"failed    {cell.name}: {error}")
            self._update()
            return
        try:
            self.tables()
        except SemidgError as problem:  # a table can be made later, the runs go on
            self._say(f"the tables could not be written: {problem}")
        self.finished = self._done()
        summary = read_json(scores_folder(run_folder(self.out, cell), self.part) / "summary.json")
        dice = summary["result"]["overall"]["dice"]["mean"]
        text = f"done      {cell.name}: {self.part} Dice {100 * dice:.1f}; {self.finished} of {len(self.cells)} runs"
        self._say(text if self.live else f"{text}, {self._left()}")
        self._update()

    def tick(self, running: Sequence[str]) -> None:
        """Move the bars."""
        if not self.live or time.monotonic() - self.looked < _BETWEEN_LOOKS:
            return
        self.looked = time.monotonic()
        for cell in self.cells:
            if cell.name in running:
                self.progress.update(self.tasks[cell.name], completed=status(cell, self.out, self.part).step)
        self._update()

    def _update(self) -> None:
        if self.live:
            failed = f", {self.failed} failed" if self.failed else ""
            self.progress.update(self.tasks[""], completed=self.finished, note=self._left() + failed)

    def _done(self) -> int:
        return sum(status(cell, self.out, self.part).state == "done" for cell in self.cells)

    def _left(self) -> str:
        return duration(seconds_left(self.cells, self.out, self.part, self.slots))

    def _say(self, text: str) -> None:
        if self.live:
            self.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)


def duration(seconds: float | None) -> str:
    """``about 1 h 20 min left``."""
    if seconds is None:
        return "no run measured yet"
    minutes = round(seconds / 60)
    if minutes < 1:
        return "nothing left" if seconds == 0 else "less than a minute left"
    hours = f"{minutes // 60} h " if minutes >= 60 else ""
    return f"about {hours}{minutes % 60} min left"
