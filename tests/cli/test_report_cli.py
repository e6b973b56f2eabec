"""semidg report as a user calls it."""

from __future__ import annotations

from pathlib import Path

import pytest

from report.report_support import make_run
from semidg.cli import main


def test_one_run_gets_its_page_inside_and_a_summary_in_a_paragraph(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run")
    assert main(["report", str(run), "--gallery", "0"]) == 0
    paragraph, place = capsys.readouterr().out.splitlines()
    assert "mean Dice" in paragraph
    assert "lesions" in paragraph
    assert place.startswith(f"{run / 'report.html'}: ")
    assert "MB" in place
    assert (run / "report.html").read_text("utf-8").startswith("<!doctype html>")


def test_several_runs_need_a_file_and_know_their_baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(make_run(tmp_path / "a", method="supervised")), str(make_run(tmp_path / "b"))]
    assert main(["report", *runs]) == 2
    assert "--out is not set" in capsys.readouterr().err
    options = ["--baseline", "b", "--gallery", "0"]
    assert main(["report", *runs, "--out", str(tmp_path / "two.html"), *options]) == 0
    assert "supervised minus dual_level" in capsys.readouterr().out
    assert main(["report", *runs, "--out", str(tmp_path / "no.html"), "--baseline", "c"]) == 2
    assert "no such method or run folder" in capsys.readouterr().err
    assert not (tmp_path / "no.html").exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [(lambda p: p.mkdir(), "not a run folder"), (lambda p: (make_run(p) / "summary.json").unlink(), "semidg evaluate")],
)
def test_a_folder_that_cannot_be_reported_on_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: object, message: str
) -> None:
    make(tmp_path / "run")  # type: ignore[operator]
    assert main(["report", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert main(["report"]) == 2
    assert "give evaluated run folders" in capsys.readouterr().err
