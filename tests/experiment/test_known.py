"""Scores of runs made elsewhere: taken over by configuration, refused with the file's name where damaged."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from comparison_support import comparison, finish, make_cases
from semidg.errors import RunError
from semidg.experiment import known as known_module
from semidg.experiment.compare import Part, refuse_other_configurations, run_folder, status
from semidg.experiment.grid import Cell, expand
from semidg.experiment.known import identity, read_known, take_over
from semidg.experiment.run import train
from semidg.files import write_text
from semidg.report.comparison_files import write_tables
from semidg.report.comparison_runs import read_scored

ARMS = {"supervised": {}, "dual_level": {}}


def made(out: Path, part: Part = "test", **grid: Any) -> list[Cell]:
    """A comparison with every run done, and its files."""
    cells = expand(comparison(ARMS, **({"seeds": [0, 1]} | grid)))
    for i, cell in enumerate(cells):
        cases = make_cases([0.5 + 0.01 * i, 0.75])
        finish(cell, out, cases, [cases, cases.assign(dice=0.25)], part=part, environment={"commit": f"c{i}"})
    write_tables("made", "supervised", cells, out, part)
    return cells


@pytest.mark.parametrize("part", ["test", "validation"])
def test_taken_over_runs_are_done_and_make_the_same_table(tmp_path: Path, part: Part) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    cells = made(there, part)
    taken = take_over(read_known([there], part), cells, here, part)
    assert taken == cells
    assert all(status(cell, here, part).state == "done" for cell in cells)
    write_tables("made", "supervised", cells, here, part)
    ending = "" if part == "test" else "-validation"
    for name in (f"table{ending}.csv", f"cases{ending}.csv.gz", f"runs{ending}.json.gz"):
        assert (here / name).read_bytes() == (there / name).read_bytes(), name
    environment = json.loads((run_folder(here, cells[1]) / "environment.json").read_text())
    assert environment["commit"] == "c1"
    assert environment["taken_over_from"] == str(there)
    assert take_over(read_known([there], part), cells, here, part) == []  # they are there already


def test_a_run_is_known_by_its_configuration_and_not_by_its_name(tmp_path: Path) -> None:
    made(tmp_path / "there")
    grid = {"seeds": [0, 1, 2], "overrides": {"data.root": "elsewhere", "trainer.threads": 3, "data.cache": "c"}}
    cells = expand(comparison({"other name": {"method.name": "dual_level"}}, **grid))
    taken = take_over(read_known([tmp_path / "there"], "test"), cells, tmp_path / "here", "test")
    assert [(cell.arm, cell.seed) for cell in taken] == [("other name", 0), ("other name", 1)]
    scored = read_scored(cells, tmp_path / "here", "test")
    assert [run.cases["mean"]["dice"].tolist() for run in scored] == [[0.51, 0.75], [0.53, 0.75]]
    for other in ({"trainer.max_steps": 7}, {"method.threshold": 0.5}, {"data.split.seed": 1}, {"labelled": [0.5]}):
        changed = expand(comparison({"dual_level": other}, seeds=[0]))
        assert take_over(read_known([tmp_path / "there"], "test"), changed, tmp_path / "x", "test") == []


def test_a_run_in_another_precision_stands_in_for_one_that_is_not_known(tmp_path: Path) -> None:
    made(tmp_path / "32", overrides={"trainer.precision": "32"})
    made(tmp_path / "bf16", seeds=[0], overrides={"trainer.precision": "bf16"})
    known = read_known([tmp_path / "32", tmp_path / "bf16"], "test")
    wanted = expand(comparison(ARMS, seeds=[0, 1], overrides={"trainer.precision": "bf16"}))
    assert take_over(known, wanted, tmp_path / "here", "test") == wanted
    computed = [
        json.loads((run_folder(tmp_path / "here", cell) / "environment.json").read_text())["precision"]
        for cell in wanted
    ]
    assert computed == ["bf16-mixed" if cell.seed == 0 else "32-true" for cell in wanted]
    write_tables("made", "supervised", wanted, tmp_path / "here", "test")
    assert "precision bf16-mixed (2 runs), 32-true (2 runs)" in (tmp_path / "here" / "table.md").read_text()
    # and what is written there goes on to say so
    again = [run.entry["precision"] for run in read_known([tmp_path / "here"], "test").values()]
    assert sorted(again) == sorted(computed)


def test_no_run_stands_in_where_the_arms_differ_in_precision(tmp_path: Path) -> None:
    made(tmp_path / "there", seeds=[0], overrides={"trainer.precision": "32"})
    arms = {"supervised": {}, "bf16": {"method.name": "supervised", "trainer.precision": "bf16"}}
    cells = expand(comparison(arms, seeds=[0], overrides={"trainer.precision": "32"}))
    taken = take_over(read_known([tmp_path / "there"], "test"), cells, tmp_path / "here", "test")
    assert [cell.arm for cell in taken] == ["supervised"]


def test_begun_runs_are_left_alone(tmp_path: Path) -> None:
    cells = made(tmp_path / "there")
    begun = run_folder(tmp_path / "here", cells[0])
    begun.mkdir(parents=True)
    (begun / "config.yaml").write_text("mine")
    assert take_over(read_known([tmp_path / "there"], "test"), cells, tmp_path / "here", "test") == cells[1:]
    assert [path.name for path in begun.iterdir()] == ["config.yaml"]


def test_nothing_of_the_machine_is_published(tmp_path: Path) -> None:
    cells = made(tmp_path, overrides={"data.root": "/secret/place", "data.cache": "/secret/cache"})
    text = gzip.decompress((tmp_path / "runs.json.gz").read_bytes()).decode()
    assert "secret" not in text
    assert len(json.loads(text)) == len(cells)
    assert set(read_known([tmp_path], "test")) == {identity(cell.config) for cell in cells}


def damage(folder: Path, change: str) -> None:
    runs, cases = folder / "runs.json.gz", folder / "cases.csv.gz"
    entries = json.loads(gzip.decompress(runs.read_bytes()))
    table = gzip.decompress(cases.read_bytes()).decode()
    if change == "missing":
        cases.unlink()
    elif change == "truncated":
        runs.write_bytes(runs.read_bytes()[:-20])
    elif change == "no gzip":
        runs.write_text("[]")
    elif change == "no list":
        runs.write_bytes(gzip.compress(b"{}"))
    elif change == "no table":
        cases.write_bytes(gzip.compress(b"a,b\n1,2\n"))
    elif change == "other cases":
        cases.write_bytes(gzip.compress(table.replace("dual_level", "other").encode()))
    elif change == "path":
        cases.write_bytes(gzip.compress(table.replace("mean", "../../mean").encode()))
    else:
        entries[0][change] = "../last"
        runs.write_bytes(gzip.compress(json.dumps(entries).encode()))


@pytest.mark.parametrize(
    "change",
    ["missing", "truncated", "no gzip", "no list", "no table", "other cases", "checkpoint", "config", "labelled"],
)
def test_damaged_files_are_refused_by_name(tmp_path: Path, change: str) -> None:
    made(tmp_path)
    damage(tmp_path, change)
    with pytest.raises(RunError, match=r"(runs\.json|cases\.csv)\.gz"):
        read_known([tmp_path], "test")


def test_no_name_in_the_files_becomes_a_path(tmp_path: Path) -> None:
    cells = made(tmp_path / "there")
    damage(tmp_path / "there", "path")
    take_over(read_known([tmp_path / "there"], "test"), cells, tmp_path / "here", "test")
    allowed = {run_folder(tmp_path / "here", cell) for cell in cells}
    for path in (tmp_path / "here").rglob("*"):
        assert any(path in folder.parents or folder in path.parents or path == folder for folder in allowed), path
    assert not (tmp_path / "here" / "mean.csv").exists()


def test_columns_that_only_other_runs_have_do_not_appear(tmp_path: Path) -> None:
    cells = expand(comparison({"supervised": {}}, seeds=[0, 1]))
    finish(cells[0], tmp_path, make_cases([0.123456, 1.0]).assign(**{"class": ""}))
    finish(cells[1], tmp_path, make_cases([0.5, 1.0]).assign(hd95_mm=2.0))
    write_tables("made", "supervised", cells, tmp_path, "test")
    without, with_mm = (known.cases["mean"] for known in read_known([tmp_path], "test").values())
    assert "hd95_mm" not in without
    assert [float(value) for value in with_mm["hd95_mm"]] == [2.0, 2.0]
    assert without["dice"].tolist() == [0.123456, 1.0]
    assert without["class"].tolist() == ["", ""]  # every run has one, if only an empty one
    assert without["id"].tolist() == ["delta 000", "delta 001"]


def scores(cells: list[Cell], out: Path) -> dict[str, float]:
    """Mean Dice by arm."""
    return {run.cell.arm: float(run.cases["mean"]["dice"].mean()) for run in read_scored(cells, out, "test")}


OTHER_DATA = {
    "supervised": {},
    "more": {"method.name": "supervised", "data.more_roots": ["b"]},
    "clean": {"method.name": "supervised", "data.root": "clean"},
}


def test_runs_on_other_data_do_not_stand_in_for_each_other(tmp_path: Path) -> None:
    """Three arms in one folder, of which only the number of roots is known elsewhere."""
    cells = expand(comparison(OTHER_DATA, seeds=[0], overrides={"data.root": "a"}))
    for i, cell in enumerate(cells):
        finish(cell, tmp_path / "there", make_cases([0.5 + 0.1 * i, 0.5]))
    write_tables("made", "supervised", cells, tmp_path / "there", "test")
    known = read_known([tmp_path / "there"], "test")
    assert [cell.arm for cell in take_over(known, cells, tmp_path / "here", "test")] == ["more"]
    assert scores(cells, tmp_path / "here") == pytest.approx({"more": 0.55})


def test_no_run_is_known_for_arms_that_differ_in_their_data_alone(tmp_path: Path) -> None:
    made(tmp_path / "there", seeds=[0])
    cells = expand(comparison(OTHER_DATA | {"dual_level": {}}, seeds=[0], overrides={"data.root": "a"}))
    taken = take_over(read_known([tmp_path / "there"], "test"), cells, tmp_path / "here", "test")
    assert [cell.arm for cell in taken] == ["dual_level"]


def test_the_other_part_of_a_run_is_taken_over_later_and_nothing_is_trained(tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    for part in ("validation", "test"):
        cells = made(there, part)  # type: ignore[arg-type]
    assert take_over(read_known([there], "test"), cells, here, "test") == cells
    assert {status(cell, here, "validation").state for cell in cells} == {"half-done"}
    assert take_over(read_known([there], "validation"), cells, here, "validation") == cells
    assert {status(cell, here, part).state for cell in cells for part in ("test", "validation")} == {"done"}  # type: ignore[arg-type]
    run = run_folder(here, cells[0])
    before = (run / "environment.json").read_bytes()
    with pytest.raises(RunError, match=r"no networks, only the scores taken over from .*there; delete the folder"):
        train(cells[0].config, run, resume=True)
    assert (run / "environment.json").read_bytes() == before


def test_scores_of_another_run_do_not_join_those_taken_over(tmp_path: Path) -> None:
    cells = made(tmp_path / "there")
    take_over(read_known([tmp_path / "there"], "test"), cells, tmp_path / "here", "test")
    for i, cell in enumerate(cells):
        finish(cell, tmp_path / "other", make_cases([0.5]), part="validation", environment={"commit": f"d{i}"})
    write_tables("made", "supervised", cells, tmp_path / "other", "validation")
    known = read_known([tmp_path / "other"], "validation")
    assert len(known) == len(cells)
    assert take_over(known, cells, tmp_path / "here", "validation") == []


@pytest.mark.parametrize("arms", [("0.10", "0.20"), ("true", "false"), ("nan", "1e3")])
def test_names_and_fractions_are_read_as_they_were_written(tmp_path: Path, arms: tuple[str, str]) -> None:
    both = {name: {"method.name": "supervised", "data.size": 32 * i} for i, name in enumerate(arms, 1)}
    cells = expand(comparison(both, labelled=[1 / 3], targets=["01", "02"], seeds=[0]))
    for cell in cells:
        cases = make_cases([0.5, 0.75], cell.target or "")
        finish(cell, tmp_path / "there", cases.assign(id=["001", "002"], group=["1.0", "1.00"]))
    write_tables("made", arms[0], cells, tmp_path / "there", "test")
    assert take_over(read_known([tmp_path / "there"], "test"), cells, tmp_path / "here", "test") == cells
    found = read_scored(cells, tmp_path / "here", "test")
    assert {(*run.cases["mean"]["id"], *run.cases["mean"]["group"]) for run in found} == {("001", "002", "1.0", "1.00")}


def test_a_take_over_that_is_cut_short_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = made(tmp_path / "there")
    known = read_known([tmp_path / "there"], "test")
    written: list[Path] = []

    def cut(path: Path, text: str) -> None:
        written.append(path)
        if len(written) == 9:  # in the second run
            raise KeyboardInterrupt
        write_text(path, text)

    with monkeypatch.context() as patch:
        patch.setattr(known_module, "write_text", cut)
        with pytest.raises(KeyboardInterrupt):
            take_over(known, cells, tmp_path / "here", "test")
    refuse_other_configurations(cells, tmp_path / "here")
    assert take_over(known, cells, tmp_path / "here", "test") == cells[1:]
    assert sorted(path.name for path in (tmp_path / "here" / "runs").iterdir()) == sorted(cell.name for cell in cells)
