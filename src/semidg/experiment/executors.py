"""Where the runs of a comparison are computed: processes of this machine, or another place with the same face."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

#: What a job's arguments are given to.
PROGRAM: tuple[str, ...] = (sys.executable, "-m", "semidg")

_STARTER = "SEMIDG_STARTER"  # number of the process that has started this one
_LOOK = 1.0  # seconds between two looks at it
_ORPHANED = threading.Event()
_GRACE = 60.0  # seconds for a child to write its checkpoint when this process itself has failed


@dataclass(frozen=True)
class Job:
    """A command of semidg, ``("train", ...)``, and where its output is appended."""

    name: str
    arguments: tuple[str, ...]
    log: Path


class Executor(Protocol):
    """Runs jobs; a context that leaves none behind, whatever ends it."""

    slots: int
    """Jobs at once."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def start(self, job: Job) -> None:
        """Begin a job."""

    def running(self) -> Sequence[str]:
        """Names of the jobs that have not ended."""

    def ended(self, timeout: float) -> list[tuple[str, int]]:
        """(name, exit code) of jobs that ended since the last call; waits for one for at most about ``timeout`` s."""

    def stop(self, *, kill: bool = False) -> None:
        """Ask all jobs to write a checkpoint and end, or end them at once; ``ended`` tells when they have."""


class LocalExecutor:
    """Child processes in sessions of their own, so that Ctrl-C reaches them through ``stop`` alone, once."""

    def __init__(self, slots: int = 1, environment: dict[str, str] | None = None, keep_open: int | None = None) -> None:
        """environment: on top of this process's. keep_open: a file number that the children inherit."""
        self.slots, self.environment, self.keep_open = slots, environment or {}, keep_open
        self.children: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        until = time.monotonic() + _GRACE
        try:
            for child in self.children.values():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(max(0.0, until - time.monotonic()))
        finally:  # also where another Ctrl-C ends the waiting
            self.stop(kill=True)
            self.children.clear()

    def start(self, job: Job) -> None:
        """Begin a job."""
        keep = () if self.keep_open is None else (self.keep_open,)
        self.children[job.name] = start_child(job, self.environment, keep)

    def running(self) -> Sequence[str]:
        """Names of the jobs that have not ended."""
        return [*self.children]

    def ended(self, timeout: float) -> list[tuple[str, int]]:
        """(name, exit code) of jobs that ended since the last call."""
        if all(child.poll() is None for child in self.children.values()):
            time.sleep(timeout)
        gone = [(name, code) for name, child in self.children.items() if (code := child.poll()) is not None]
        for name, _ in gone:
            del self.children[name]
        return gone

    def stop(self, *, kill: bool = False) -> None:
        """SIGTERM, or SIGKILL with all that the children have started."""
        for child in self.children.values():
            stop_child(child, kill=kill)


def start_child(
    job: Job,
    environment: dict[str, str],
    keep: Sequence[int] = (),
    *,
    program: Sequence[str] | None = None,
    folder: str | None = None,
) -> subprocess.Popen[bytes]:
    """The process of a job, its output appended to the log behind a line with the command."""
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as log:
        log.write(f"$ semidg {' '.join(job.arguments)}\n".encode())
        log.flush()
        return subprocess.Popen(
            [*(program or PROGRAM), *job.arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | environment | {_STARTER: str(os.getpid())},
            start_new_session=True,
            pass_fds=keep,
        )


def stop_with_starter() -> None:
    """In a process of ``start_child``: when the one that started it is gone, by whatever signal, stop in good order,
    as on SIGTERM. Else a run whose starter was killed would hold its folder against the one that begins it again."""
    starter = os.environ.pop(_STARTER, None)

    def stop() -> None:
        _ORPHANED.set()
        os.kill(os.getpid(), signal.SIGTERM)

    if starter is not None and os.name == "posix":  # elsewhere the parent may be a launcher of Python
        when_gone(int(starter), stop)


def when_gone(parent: int, act: Callable[[], None]) -> None:
    """Call ``act``, in a thread, once the process that started this one is gone, by whatever signal."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK)
        act()

    threading.Thread(target=watch, daemon=True).start()


def orphaned() -> bool:
    """Whether the signal of ``stop_with_starter`` was sent: it may be the second one, and is no impatience."""
    return _ORPHANED.is_set()


def stop_child(child: subprocess.Popen[bytes], *, kill: bool) -> None:
    """SIGTERM to a child, or SIGKILL to its whole session."""
    with contextlib.suppress(ProcessLookupError):
        if child.poll() is None and kill:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        elif child.poll() is None:
            child.terminate()
