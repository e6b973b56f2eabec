"""Runs as tasks of a Ray cluster on this machine; skipped where Ray is not installed."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from comparison_support import FAKE, comparison
from semidg.errors import ConfigError
from semidg.experiment import ray_executor
from semidg.experiment.compare import Outcome, run_folder, run_grid, status
from semidg.experiment.grid import Cell, expand
from semidg.experiment.ray_executor import RayExecutor

ray = pytest.importorskip("ray")


@pytest.fixture(autouse=True)
def _fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "fake.py"
    program.write_text(FAKE)
    monkeypatch.setattr(ray_executor, "PROGRAM", (sys.executable, str(program)))


def cells(*seeds: int) -> list[Cell]:
    return expand(comparison({"supervised": {}}, seeds=list(seeds)))


class Stop:
    """Sends a signal to this process once a run waits for one."""

    def __init__(self, waiting: Path) -> None:
        self.waiting, self.most = waiting, 0

    def started(self, cell: Cell) -> None: ...

    def ended(self, cell: Cell, error: str | None) -> None: ...

    def tick(self, running: list[str]) -> None:
        self.most = max(self.most, len(running))
        if self.waiting.exists():
            self.waiting.rename(self.waiting.with_name("told"))
            os.kill(os.getpid(), signal.SIGTERM)


def test_the_grid_runs_on_the_cluster_fails_and_stops_as_on_one_machine(address: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    grid = cells(0, 1, 7)
    executor = RayExecutor(address=address)
    assert executor.slots == 2
    watch = Stop(tmp_path / "never")
    outcome = run_grid(grid, out, executor, watcher=watch)
    assert [*outcome.failed] == [grid[2].name]
    assert "seed 7 is not liked (exit code 1" in outcome.failed[grid[2].name]
    assert [status(cell, out).state for cell in grid] == ["done", "done", "half-done"]
    assert watch.most == 2
    assert not ray.is_initialized()

    (cell,) = cells(9)
    log = out / "logs" / f"{cell.name}.log"
    outcome = run_grid([cell], out, RayExecutor(1, address=address), watcher=Stop(run_folder(out, cell) / "waiting"))
    assert outcome == Outcome(signal=signal.SIGTERM)
    assert "training" in log.read_text()
    assert not alive(cell.name)
    assert run_grid([cell], out, RayExecutor(1, address=address)) == Outcome()
    assert status(cell, out).state == "done"


def test_a_lost_worker_is_a_failed_run_and_leaves_no_child(address: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (cell,) = cells(9)
    run = run_folder(out, cell)

    class Kill(Stop):
        def tick(self, running: list[str]) -> None:
            if self.waiting.exists():
                self.waiting.rename(run / "told")
                executor.stop(kill=True)

    executor = RayExecutor(address=address)
    outcome = run_grid([cell], out, executor, watcher=Kill(run / "waiting"))
    assert [*outcome.failed] == [cell.name]
    until = time.monotonic() + 10
    while alive(cell.name) and time.monotonic() < until:
        time.sleep(0.1)
    assert not alive(cell.name)


def test_a_run_that_fits_nowhere_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="no machine of the Ray cluster has 64 CPUs and 0 GPUs"):
        RayExecutor(address=address, cpus=64)
    assert not ray.is_initialized()


def alive(name: str) -> list[str]:
    """Processes whose command line names a run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if f"{name} --score" in text or f"runs/{name}" in text:
            found.append(text)
    return found
