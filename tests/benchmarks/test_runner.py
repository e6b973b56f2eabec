"""``python -m benchmarks``: processes of their own, what is written, and what is not."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import benchmarks.__main__ as runner
import pytest
from benchmarks.figure import Figure
from benchmarks.process import in_child, peak_mb
from benchmarks.results import read, to_json

FIGURES = {"step": [Figure("ratio", 1.05, 1.0, 1.1, target=1.1)], "fourier": [Figure("share", 0.2, 0.2, 0.2)]}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What would be measured in processes: figures of two benchmarks; the third fails."""
    calls: list[tuple[Any, ...]] = []

    def call(function: str, name: str, quick: bool) -> Any:
        calls.append((function, name, quick))
        if name not in FIGURES:
            raise subprocess.CalledProcessError(3, "python")
        return {"figures": to_json(FIGURES[name]), "threads": 1, "processor": "P"}

    monkeypatch.setattr(runner, "in_child", call)
    return calls


def test_a_function_runs_in_a_process_of_its_own_and_answers_in_json() -> None:
    assert in_child("operator:concat", [1, "ä"], [None]) == [1, "ä", None]
    small = in_child("benchmarks.process:peak_mb")
    assert 1 < small < peak_mb()  # not what this process has: PyTorch and all


def test_an_error_there_is_an_error_here(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        in_child("operator:truediv", 1, 0)
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_results_are_printed_and_written(
    measured: list[tuple[Any, ...]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r.json"
    assert runner.main(["step", "fourier", "--quick", "--out", str(out)]) == 0
    assert [call[1:] for call in measured] == [("step", True), ("fourier", True)]
    assert capsys.readouterr().out.splitlines()[::2] == [
        "step: ratio = 1.050 (1.000 to 1.100) [at most 1.1, reached]",
        "fourier: share = 0.200",
    ]
    entries = read(out)
    assert {name: [Figure(**one) for one in entry["figures"]] for name, (entry,) in entries.items()} == FIGURES
    keys = {"commit", "date", "figures", "load", "processor", "python", "quick", "threads", "torch"}
    assert all(set(entry) == keys and entry["quick"] for (entry,) in entries.values())


def test_a_benchmark_that_fails_keeps_its_old_entry_and_stops_no_other(
    measured: list[tuple[Any, ...]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r.json"
    runner.main(["step", "--out", str(out)])
    old = read(out)["step"]
    assert runner.main(["memory", "fourier", "--out", str(out)]) == 1
    assert "memory: failed with exit code 3" in capsys.readouterr().err
    assert read(out).keys() == {"step", "fourier"}
    assert read(out)["step"] == old


def test_the_tables_follow_the_file_of_the_documentation_alone(
    measured: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    results, page = tmp_path / "performance.json", tmp_path / "performance.md"
    page.write_text("<!-- step -->\n<!-- end of step -->\n")
    monkeypatch.setattr(runner, "RESULTS", results)
    monkeypatch.setattr(runner, "PAGE", page)
    monkeypatch.setattr(runner.write_tables, "__defaults__", (results, page))
    runner.main(["step", "--out", str(tmp_path / "other.json")])
    assert "| ratio |" not in page.read_text()
    runner.main(["step"])
    assert "| ratio | 1.050 (1.000 to 1.100) | at most 1.1 | reached |" in page.read_text()
    page.write_text("<!-- step -->\n<!-- end of step -->\n")
    measured.clear()
    runner.main(["--table"])
    assert "| ratio |" in page.read_text()
    assert measured == []


@pytest.mark.parametrize("arguments", [["nothing"], ["--quick", "--out", str(runner.RESULTS)]])
def test_wrong_command_lines_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        runner.main(arguments)
    assert "error:" in capsys.readouterr().err


def test_quick_writes_nothing_unless_told(measured: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "merge", lambda *_: pytest.fail("written"))
    monkeypatch.setattr(runner, "write_text", lambda *_: pytest.fail("written"))
    assert runner.main(["step", "--quick"]) == 0
