"""A grid of runs: skipped, resumed, refused, failed, stopped. A program without torch stands in for the training."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from comparison_support import FAKE, comparison, finish, make_cases
from semidg.config_file import dump_config
from semidg.errors import RunError
from semidg.experiment import compare as grid_module
from semidg.experiment import executors
from semidg.experiment.compare import (
    Outcome,
    refuse_other_configurations,
    run_folder,
    run_grid,
    seconds_left,
    status,
)
from semidg.experiment.executors import Job, LocalExecutor
from semidg.experiment.grid import Cell, expand
from semidg.files import locked


@pytest.fixture(autouse=True)
def _fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "fake.py"
    program.write_text(FAKE)
    monkeypatch.setattr(executors, "PROGRAM", (sys.executable, str(program)))
    monkeypatch.setattr(grid_module, "_PAUSE", 0.02)


def cells(*seeds: int, **grid: object) -> list[Cell]:
    return expand(comparison({"supervised": {}}, seeds=list(seeds), **grid))


def calls(out: Path, cell: Cell) -> list[str]:
    return (run_folder(out, cell) / "calls.txt").read_text().split()


def table(out: Path) -> dict[str, dict[str, str]]:
    with (out / "runs.csv").open() as file:
        return {row["run"]: row for row in csv.DictReader(file)}


class Watch:
    """Remembers what happened, and may act when a run starts."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []
        self.most = 0

    def started(self, cell: Cell) -> None:
        self.events.append(("started", cell.seed))

    def ended(self, cell: Cell, error: str | None) -> None:
        self.events.append(("failed" if error else "done", cell.seed))

    def tick(self, running: list[str]) -> None:
        self.most = max(self.most, len(running))


def test_done_runs_are_skipped_and_new_ones_added(tmp_path: Path) -> None:
    out, watch = tmp_path / "out", Watch()
    assert run_grid(cells(0, 1), out, LocalExecutor(), watcher=watch) == Outcome()
    assert watch.events == [("started", 0), ("done", 0), ("started", 1), ("done", 1)]
    more = cells(0, 1, 2)
    assert [status(cell, out).state for cell in more] == ["done", "done", "left"]
    run_grid(more, out, LocalExecutor())
    assert [calls(out, cell) for cell in more] == [["start"]] * 3
    assert [row["state"] for row in table(out).values()] == ["done"] * 3
    assert all(float(row["seconds"]) > 0 for row in table(out).values())
    assert [row["threads"] for row in table(out).values()] == [os.environ.get("OMP_NUM_THREADS", "")] * 3


def test_a_failed_run_does_not_stop_the_others_and_is_tried_again(tmp_path: Path) -> None:
    out, watch = tmp_path / "out", Watch()
    grid = cells(7, 0)
    failed = run_grid(grid, out, LocalExecutor(), watcher=watch).failed
    assert [*failed] == [grid[0].name]
    assert failed[grid[0].name].startswith("semidg: error: seed 7 is not liked (exit code 1; ")
    assert watch.events == [("started", 7), ("failed", 7), ("started", 0), ("done", 0)]
    assert table(out)[grid[0].name]["state"] == "failed"
    assert "not liked" in table(out)[grid[0].name]["error"]
    assert [*run_grid(grid, out, LocalExecutor()).failed] == [grid[0].name]
    assert calls(out, grid[0]) == ["start", "resume"]
    assert calls(out, grid[1]) == ["start"]
    log = (out / "logs" / f"{grid[0].name}.log").read_text()
    assert log.count("$ semidg train") == log.count("training") == 2


def test_a_killed_run_is_resumed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (cell,) = cells(8)
    assert "killed by signal 9" in run_grid([cell], out, LocalExecutor()).failed[cell.name]
    assert status(cell, out).state == "half-done"
    assert (status(cell, out).step, status(cell, out).seconds) == (3, 1.5)
    before = float(table(out)[cell.name]["seconds"])
    assert run_grid([cell], out, LocalExecutor()) == Outcome()
    assert calls(out, cell) == ["start", "resume"]
    assert status(cell, out).state == "done"
    assert float(table(out)[cell.name]["seconds"]) > before  # over all starts


def test_a_run_killed_before_it_was_one_is_begun_anew(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (cell,) = cells(0)
    run_folder(out, cell).mkdir(parents=True)
    (run_folder(out, cell) / "config.yaml").write_text("half")
    (run_folder(out, cell) / ".run.json.0123456789abcdef.part").write_text("")
    assert run_grid([cell], out, LocalExecutor()) == Outcome()
    assert calls(out, cell) == ["start"]


def test_another_configuration_is_refused_with_its_keys(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_grid(cells(0), out, LocalExecutor())
    other = cells(0, 1, overrides={"optimiser.lr": 0.5, "trainer.max_steps": 5})
    with pytest.raises(RunError, match=r"seed-0: .*differs in optimiser.lr, trainer.max_steps\); delete the folder"):
        run_grid(other, out, LocalExecutor())
    assert not run_folder(out, other[1]).exists()
    (tmp_path / "b" / "runs" / other[0].name).mkdir(parents=True)
    (tmp_path / "b" / "runs" / other[0].name / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="is no run folder and not empty"):
        refuse_other_configurations(other, tmp_path / "b")


def test_jobs_run_at_once_and_their_threads_are_no_part_of_the_configuration(tmp_path: Path) -> None:
    out, watch = tmp_path / "out", Watch()
    grid = cells(0, 1, 2)
    run_grid(grid, out, LocalExecutor(2, {"OMP_NUM_THREADS": "5"}), watcher=watch)
    assert watch.most == 2
    assert [row["threads"] for row in table(out).values()] == ["5"] * 3
    run_grid(grid, out, LocalExecutor(1, {"OMP_NUM_THREADS": "1"}))
    assert [calls(out, cell) for cell in grid] == [["start"]] * 3


def test_the_validation_part_is_scored_without_the_test_part(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (cell,) = cells(0)
    run_grid([cell], out, LocalExecutor(), "validation")
    run = run_folder(out, cell)
    assert (run / "parts" / "validation" / "summary.json").is_file()
    assert not (run / "summary.json").exists()
    assert (status(cell, out, "validation").state, status(cell, out, "test").state) == ("done", "half-done")
    run_grid([cell], out, LocalExecutor())
    assert status(cell, out).state == "done"
    assert calls(out, cell) == ["start", "resume"]


def test_scores_of_a_half_trained_run_do_not_make_it_done(tmp_path: Path) -> None:
    (cell,) = cells(0)
    finish(cell, tmp_path, make_cases([0.5, 0.6]))
    summary = run_folder(tmp_path, cell) / "summary.json"
    summary.write_text(summary.read_text().replace('"step": 6', '"step": 4'))
    assert status(cell, tmp_path).state == "half-done"
    summary.write_text("{")
    assert status(cell, tmp_path).state == "half-done"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_lets_the_runs_end_in_good_order(
    tmp_path: Path, number: signal.Signals, request: pytest.FixtureRequest
) -> None:
    before = signal.signal(number, signal.default_int_handler)  # under nohup it is ignored, and stays so
    request.addfinalizer(lambda: signal.signal(number, before))
    out = tmp_path / "out"
    grid = cells(9, 0)
    waiting = run_folder(out, grid[0]) / "waiting"

    def interrupt() -> None:
        while not waiting.exists():
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    handler = signal.getsignal(number)
    thread = threading.Thread(target=interrupt)
    thread.start()
    executor, watch = LocalExecutor(), Watch()
    outcome = run_grid(grid, out, executor, watcher=watch)
    thread.join()
    assert outcome == Outcome(signal=number)  # a stopped run has not failed
    assert watch.events == [("started", 9)]
    assert not executor.running()
    assert signal.getsignal(number) is handler
    assert run_grid(grid, out, LocalExecutor()) == Outcome()
    assert calls(out, grid[0]) == ["start", "resume"]


def test_an_exception_leaves_no_child(tmp_path: Path) -> None:
    out, children = tmp_path / "out", []
    executor = LocalExecutor()

    class Broken(Watch):
        def tick(self, running: list[str]) -> None:
            if (run_folder(out, grid[0]) / "waiting").exists():
                children.extend(executor.children.values())
                raise ValueError("a mistake of ours")

    grid = cells(9)
    with pytest.raises(ValueError, match="of ours"):
        run_grid(grid, out, executor, watcher=Broken())
    assert [child.poll() for child in children] == [143]


def test_a_run_ends_in_good_order_when_its_starter_is_killed(tmp_path: Path) -> None:
    child = tmp_path / "child.py"
    child.write_text(
        "import signal, sys, time\nfrom pathlib import Path\n"
        "from semidg.experiment.executors import stop_with_starter\n"
        "def stop(*_):\n    Path(sys.argv[1]).write_text('stopped')\n    sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, stop)\nstop_with_starter()\nprint('ready', flush=True)\ntime.sleep(60)\n"
    )
    starter = tmp_path / "starter.py"
    starter.write_text(
        "import os, signal, sys, time\nfrom pathlib import Path\n"
        "from semidg.experiment.executors import Job, start_child\n"
        "log = Path(sys.argv[1])\n"
        "start_child(Job('a', (sys.argv[2],), log), {}, program=(sys.executable, sys.argv[3]))\n"
        "while 'ready' not in (log.read_text() if log.exists() else ''):\n    time.sleep(0.05)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    told = tmp_path / "told"
    arguments = [sys.executable, str(starter), str(tmp_path / "log"), str(told), str(child)]
    assert subprocess.run(arguments, check=False, timeout=60).returncode == -signal.SIGKILL
    until = time.monotonic() + 20
    while not told.exists() and time.monotonic() < until:
        time.sleep(0.1)
    assert told.read_text() == "stopped"


def test_a_child_that_does_not_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "_GRACE", 0.3)
    text = "import signal, sys, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    monkeypatch.setattr(executors, "PROGRAM", (sys.executable, "-c", text))
    log = tmp_path / "log"
    with LocalExecutor() as executor:
        executor.start(Job("deaf", (), log))
        (child,) = executor.children.values()
        while "deaf" not in log.read_text():
            time.sleep(0.02)
    assert child.poll() == -signal.SIGKILL


def test_a_folder_is_of_one_comparison_at_a_time_and_of_its_children(tmp_path: Path) -> None:
    with locked(tmp_path, "another one") as lock:
        with pytest.raises(RunError, match="another one works there"), locked(tmp_path, "another one"):
            pass
        executor = LocalExecutor(keep_open=lock)
        (cell,) = cells(9)
        out = tmp_path
        job = Job("child", ("train", "--config", str(tmp_path / "c.yaml"), "--out", str(run_folder(out, cell)),
                            "--score", "test"), tmp_path / "log")  # fmt: skip
        (tmp_path / "c.yaml").write_text(dump_config(cell.config))
        executor.start(job)
        while not (run_folder(out, cell) / "waiting").exists():
            time.sleep(0.02)
    with pytest.raises(RunError, match="another one works there"), locked(tmp_path, "another one"):
        pass
    executor.__exit__(None, None, None)
    with locked(tmp_path, "another one"):
        pass


def test_runs_of_another_machine_tell_only_how_arms_compare(tmp_path: Path) -> None:
    grid = expand(comparison({"supervised": {}, "epl": {}}, seeds=[0, 1, 2]))
    by_arm = {arm: [cell for cell in grid if cell.arm == arm] for arm in ("supervised", "epl")}
    for cell in (by_arm["supervised"][0], by_arm["epl"][0]):  # 10 s a step there, 30 of epl
        finish(cell, tmp_path, make_cases([0.5, 0.6]), environment={"taken_over_from": "published"})
    (tmp_path / "runs.csv").write_text(f"run,seconds\n{by_arm['epl'][0].name},180\n")
    assert seconds_left(grid, tmp_path) is None
    finish(by_arm["supervised"][1], tmp_path, make_cases([0.5, 0.6]))
    (tmp_path / "runs.csv").write_text(
        f"run,seconds\n{by_arm['epl'][0].name},180\n{by_arm['supervised'][1].name},240\n"
    )
    assert seconds_left(grid, tmp_path) == pytest.approx(6 * (40 + 2 * 4 * 30))


def test_the_estimate_is_by_arm_then_by_the_mean_then_by_what_is_begun(tmp_path: Path) -> None:
    grid = expand(comparison({"supervised": {}, "epl": {"trainer.max_steps": 12}, "cps": {}}, seeds=[0, 1]))
    assert seconds_left(grid, tmp_path) is None
    half = run_folder(tmp_path, grid[0])
    half.mkdir(parents=True)
    (half / "metrics.csv").write_text("step,seconds\n2,20\n")
    assert seconds_left(grid, tmp_path) == pytest.approx(10 * (4 + 12 + 6 + 6 + 12 + 6))
    finish(grid[0], tmp_path, make_cases([0.5, 0.6]))  # 60 s, 6 steps
    finish(grid[1], tmp_path, make_cases([0.5, 0.6]))  # 60 s, 12 steps
    assert seconds_left(grid, tmp_path) == pytest.approx(10 * 6 + 5 * 12 + 2 * 7.5 * 6)
    assert seconds_left(grid, tmp_path, slots=2) == pytest.approx((10 * 6 + 5 * 12 + 2 * 7.5 * 6) / 2)
    (tmp_path / "runs.csv").write_text(f"run,seconds\n{grid[0].name},90\n")  # with what surrounds the training
    assert seconds_left(grid[::3], tmp_path) == pytest.approx(15 * 6)
    assert seconds_left(grid[:2], tmp_path) == 0


def test_the_time_of_runs_that_are_not_of_this_grid_is_kept(tmp_path: Path) -> None:
    both = expand(comparison({"supervised": {}, "epl": {}}, seeds=[0]))
    run_grid(both, tmp_path, LocalExecutor())
    before = table(tmp_path)
    run_grid(both[:1], tmp_path, LocalExecutor())
    assert table(tmp_path) == before
    run_grid(both, tmp_path, LocalExecutor())
    assert table(tmp_path) == before
    shutil.rmtree(run_folder(tmp_path, both[1]))
    run_grid(both[:1], tmp_path, LocalExecutor())
    assert [*table(tmp_path)] == [both[0].name]
