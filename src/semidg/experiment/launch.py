"""Start one process for each device of this machine, follow them, and end them all when one fails."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from semidg import errors
from semidg.config import ExperimentConfig
from semidg.errors import RunError, SemidgError
from semidg.experiment.checkpoint import load_state
from semidg.experiment.distributed import STORE
from semidg.experiment.executors import orphaned
from semidg.experiment.keeper import Listener
from semidg.experiment.prepare import Report

#: What a rank is started as, with the folder of its order.
PROGRAM: tuple[str, ...] = (sys.executable, "-m", "semidg.experiment.rank")

_TWICE = 1.0  # seconds: timeout(1) and schedulers signal a process and its group, which is one wish
_GRACE = 20.0  # seconds for the others to end when a rank has failed


def launch(
    config: ExperimentConfig,
    run: Path,
    *,
    resume: bool,
    report: Report | None,
    listener: Listener | None,
    score: str | None,
) -> dict[str, Any]:
    """``train`` in ``trainer.devices`` processes of this machine; the same results, progress and errors.

    Raises RunError that names the rank where one dies; its run folder can be resumed from the last checkpoint.
    """
    from semidg.experiment.run import Stopped

    order = {"config": config.model_dump(mode="json"), "run": str(run), "resume": resume, "score": score}
    with tempfile.TemporaryDirectory(prefix="semidg-ranks-") as name:
        folder = Path(name)
        (folder / "order.json").write_text(json.dumps(order), "utf-8")
        with _Ranks(folder, config.trainer.devices) as ranks:
            outcome = ranks.follow({"report": report} | _methods(listener))
        match outcome:
            case ["done", summary]:
                return dict(summary)
            case ["stopped", step, number]:
                raise Stopped(run, step, ranks.signal or number)
        if ranks.signal is not None:
            raise Stopped(run, _last_step(run), ranks.signal)
        raise _failure(folder, run, ranks)


def _methods(listener: Listener | None) -> dict[str, Callable[..., None] | None]:
    return {name: getattr(listener, name, None) for name in ("begin", "step", "row")}


class _Ranks:
    """The processes; a context that leaves none behind."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count
        self.children: list[subprocess.Popen[str]] = []
        self.events: queue.Queue[list[Any]] = queue.Queue()
        self.first_dead: int | None = None
        self.signal: int | None = None

    def __enter__(self) -> Self:
        shared = {STORE: str(self.folder / "store"), "WORLD_SIZE": str(self.count), "NODE_RANK": "0"}
        with _ignoring(signal.SIGINT):  # inherited: Ctrl-C comes to this process alone, which passes it on once
            for rank in range(self.count):
                child = subprocess.Popen(
                    [*PROGRAM, str(self.folder)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE if rank == 0 else subprocess.DEVNULL,
                    text=True,
                    env=os.environ | shared | {"LOCAL_RANK": str(rank), "RANK": str(rank)},
                )
                self.children.append(child)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in self.children:
            if child.poll() is None:
                child.kill()
        for child in self.children:
            child.wait()

    def follow(self, listeners: dict[str, Callable[..., None] | None]) -> list[Any] | None:
        """Pass on what rank 0 tells until all have ended; returns its last word, None if it had none."""
        reader = threading.Thread(target=self._read, daemon=True)
        reader.start()
        outcome: list[Any] | None = None
        until: float | None = None
        with self._passing_signals():
            while any(code is None for code in self._codes()) or reader.is_alive() or not self.events.empty():
                with contextlib.suppress(queue.Empty):
                    event = self.events.get(timeout=0.1)
                    if event[0] in ("done", "stopped"):
                        outcome = event
                    elif (tell := listeners.get(event[0])) is not None:
                        tell(*event[1:])
                if until is None and self.first_dead is not None:
                    until = time.monotonic() + _GRACE
                if until is not None and time.monotonic() > until:
                    for child in self.children:
                        child.kill()
                    reader.join(1)
                    break
        return outcome

    def _codes(self) -> list[int | None]:
        codes = [child.poll() for child in self.children]
        failed = [rank for rank, code in enumerate(codes) if code]
        if failed and self.first_dead is None:
            # of several the one that a signal has ended: the others ended because of it
            self.first_dead = min(failed, key=lambda rank: (codes[rank] or 0) > 0)
        return codes

    def _read(self) -> None:
        stream = self.children[0].stdout
        assert stream is not None
        for line in stream:
            self.events.put(json.loads(line))

    @contextlib.contextmanager
    def _passing_signals(self) -> Iterator[None]:
        """SIGTERM and Ctrl-C ask the ranks to stop in good order; a second one ends them at once."""
        since = 0.0

        def ask(number: int, frame: FrameType | None) -> None:
            nonlocal since
            if self.signal is not None and time.monotonic() - since > _TWICE and not orphaned():
                raise KeyboardInterrupt
            if self.signal is not None:
                return
            self.signal, since = number, time.monotonic()
            for child in self.children:
                child.terminate()

        old = {}
        with contextlib.suppress(ValueError):  # not the main thread: the caller handles signals
            for number in (signal.SIGTERM, signal.SIGINT):
                old[number] = signal.signal(number, ask)
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def _ignoring(number: int) -> Iterator[None]:
    try:
        old = signal.signal(number, signal.SIG_IGN)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(number, old)


def _failure(folder: Path, run: Path, ranks: _Ranks) -> SemidgError:
    """The error of the rank that failed first."""
    found = {}
    for rank in range(ranks.count):
        with contextlib.suppress(OSError, ValueError):
            found[rank] = json.loads((folder / f"failure-{rank}.json").read_text("utf-8"))
    dead = ranks.first_dead or 0
    code = ranks.children[dead].returncode
    where = f"rank {dead} of {ranks.count}"
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        hint = " (out of memory?)" if -code == signal.SIGKILL else ""
        return RunError(f"{run}: {where} was ended by {name}{hint}; {_mend(run)}")
    known = [rank for rank, values in found.items() if values["known"]]
    if known:
        values = found[known[0]]
        kind = getattr(errors, values["kind"], SemidgError)
        return kind(values["text"]) if issubclass(kind, SemidgError) else SemidgError(values["text"])
    if found:
        dead, values = min(found.items(), key=lambda item: item[1]["time"])
        print(values["text"], file=sys.stderr)
        last = values["text"].strip().splitlines()[-1]
        return RunError(f"{run}: rank {dead} of {ranks.count} failed ({last}); {_mend(run)}")
    return RunError(f"{run}: {where} ended with exit code {code}; {_mend(run)}")


def _mend(run: Path) -> str:
    if not (run / "run.json").is_file():
        return "nothing was trained yet"
    return f"the last checkpoint is of step {_last_step(run)}; continue with: semidg train --resume --out {run}"


def _last_step(run: Path) -> int:
    try:
        return load_state(run / "checkpoints" / "last.pt").step
    except RunError:
        return 0
