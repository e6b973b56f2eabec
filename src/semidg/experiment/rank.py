"""One of the processes that ``launch`` starts: ``python -m semidg.experiment.rank FOLDER``.

FOLDER/order.json says what to train. Rank 0 writes what happens to standard output, a JSON object a line; what is meant
for people goes to standard error. A rank that fails leaves FOLDER/failure-RANK.json.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any, TextIO

from semidg.experiment.executors import when_gone


class _Events:
    """Tells the starter of a training what happens in it (``Listener``, ``Report``)."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def send(self, kind: str, *values: Any) -> None:
        """One line."""
        print(json.dumps([kind, *values]), file=self.stream, flush=True)

    def report(self, what: str, done: int, total: int) -> None:
        """A slow preparation has done ``done`` of ``total``."""
        self.send("report", what, done, total)

    def begin(self, step: int, total: int) -> None:
        """Training starts after ``step`` of ``total`` steps."""
        self.send("begin", step, total)

    def step(self, step: int) -> None:
        """A step is done."""
        self.send("step", step)

    def row(self, row: dict[str, float]) -> None:
        """A row of metrics.csv was written."""
        self.send("row", row)


def main(folder: Path) -> int:
    """Train as one rank; returns the exit code."""
    events = _Events(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)  # a library that prints must not be taken for an event
    when_gone(os.getppid(), lambda: os._exit(128 + signal.SIGTERM))
    from semidg.config_file import parse_config
    from semidg.errors import SemidgError
    from semidg.experiment.run import Stopped, train

    order = json.loads((folder / "order.json").read_text("utf-8"))
    config = parse_config(order["config"], "options")
    rank = os.environ["LOCAL_RANK"]

    def fail(error: Exception, known: bool) -> None:
        text = str(error) if known else "".join(traceback.format_exception(error))
        values = {"kind": type(error).__name__, "known": known, "text": text, "time": time.time()}
        (folder / f"failure-{rank}.json").write_text(json.dumps(values), "utf-8")

    try:
        summary = train(
            config,
            Path(order["run"]),
            resume=order["resume"],
            report=events.report,
            listener=events,
            score=order["score"],
        )
    except Stopped as stop:
        if rank == "0":
            events.send("stopped", stop.step, stop.signal)
    except SemidgError as error:
        fail(error, known=True)
        return 2
    except Exception as error:  # a defect of ours, or the end of another rank
        fail(error, known=False)
        return 1
    else:
        if rank == "0":
            events.send("done", summary)
    return 0


if __name__ == "__main__":
    try:
        code = main(Path(sys.argv[1]))
    except SystemExit as end:  # another rank has failed
        code = int(end.code or 0)
    sys.stderr.flush()
    os._exit(code)  # threads of a broken exchange may hold up an orderly end, or abort it
