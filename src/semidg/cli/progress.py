"""Progress on a terminal as bars, elsewhere as a line now and then."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

_SECONDS_BETWEEN_LINES = 30.0


class Bars:
    """A context in which preparations report, and a training is watched (``Listener`` of a training)."""

    def __init__(self, title: str = "training") -> None:
        self.title = title
        self.console = Console(stderr=True)
        self.live = self.console.is_terminal
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.progress = Progress(*columns, TextColumn("{task.fields[note]}"), console=self.console)
        self.tasks: dict[str, TaskID] = {}
        self.note = ""
        self.printed = time.monotonic()
        self.total = 0
        self.first = (0, 0.0)
        self.dice = ""

    def __enter__(self) -> Bars:
        if self.live:
            self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.progress.stop()

    def report(self, what: str, done: int, total: int) -> None:
        """A slow preparation has done ``done`` of ``total``."""
        if not self.live:
            return
        if what not in self.tasks:
            self.tasks[what] = self.progress.add_task(what, total=total, note="")
        self.progress.update(self.tasks[what], completed=done, total=total)

    def begin(self, step: int, total: int) -> None:
        """Training starts after ``step`` of ``total`` steps."""
        self.total, self.first = total, (step, time.monotonic())
        if self.live:
            self.tasks[self.title] = self.progress.add_task(self.title, total=total, completed=step, note="")

    def step(self, step: int) -> None:
        """A step is done."""
        if self.live:
            self.progress.update(self.tasks[self.title], completed=step, note=self.note)
        elif time.monotonic() - self.printed > _SECONDS_BETWEEN_LINES or step == self.total:
            self.printed = time.monotonic()
            begun, since = self.first
            left = (self.total - step) * (self.printed - since) / max(1, step - begun)
            print(f"{self.title}: step {step}/{self.total}, {left / 60:.1f} min left  {self.note}", file=sys.stderr)

    def row(self, row: dict[str, float]) -> None:
        """Show the losses, and the last validation Dice."""
        hidden = ("step", "seconds", "lr")
        parts = [f"{k} {v:.3f}" for k, v in row.items() if k not in hidden and not k.startswith("validation")]
        if "validation_dice" in row:
            self.dice = f"  validation Dice {row['validation_dice']:.3f}"
        self.note = " ".join(parts) + self.dice
