"""Tables and figure of a comparison, against values computed here from the same cases."""

from __future__ import annotations

import io
import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import wilcoxon

from comparison_support import comparison, finish, make_cases
from report.report_support import Page
from semidg.errors import RunError
from semidg.evaluation.comparison import compare, holm
from semidg.evaluation.statistics import bootstrap_interval
from semidg.experiment.compare import run_folder
from semidg.experiment.grid import Cell, expand
from semidg.report.comparison_files import write_tables
from semidg.report.comparison_rows import Row, mean_rows, rows
from semidg.report.comparison_runs import read_scored
from semidg.report.comparison_text import latex, latex_text, markdown, terminal

N = 24
GENERATOR = np.random.default_rng(0)
DIFFICULTY = GENERATOR.uniform(0.3, 0.8, N)


def cases_of(cell: Cell, gain: float = 0.0) -> pd.DataFrame:
    """Cases of a run: the same images for every arm and seed, two a group."""
    seed = [cell.seed, int(1000 * cell.labelled), *cell.arm.encode()]
    noise = np.random.default_rng(seed).normal(0, 0.04, N)
    return make_cases(np.clip(DIFFICULTY + gain + noise, 0, 1), cell.target or "clinic", group=2)


def one(found: list[Row], arm: str, labelled: float, *, one_network: bool = False, target: str | None = None) -> Row:
    (row,) = (r for r in found if (r.arm, r.labelled, r.one_network, r.target) == (arm, labelled, one_network, target))
    return row


@pytest.fixture
def grid(tmp_path: Path) -> tuple[list[Cell], Path]:
    """Two fractions, two seeds, a ceiling; ``b`` has two networks."""
    arms = {"a": {}, "b": {"data.size": 64}, "ceiling": {"labelled": [1.0], "data.size": 48}}
    cells = expand(comparison(arms, labelled=[0.25, 0.5], seeds=[0, 1], targets=[None]))
    for cell in cells:
        networks = [cases_of(cell, 0.01), cases_of(cell, 0.03)] if cell.arm == "b" else []
        finish(cell, tmp_path, cases_of(cell, 0.05 if cell.arm == "b" else 0.0), networks)
    return cells, tmp_path


def test_rows_are_those_of_the_statistics_on_the_same_cases(grid: tuple[list[Cell], Path]) -> None:
    cells, out = grid
    found = rows(read_scored(cells, out, "test"), "a")
    assert [(r.labelled, r.name) for r in found] == [
        (0.25, "a"), (0.25, "b"), (0.25, "b, one network"),
        (0.5, "a"), (0.5, "b"), (0.5, "b, one network"), (1.0, "ceiling"),
    ]  # fmt: skip
    runs = {(c.arm, c.labelled, c.seed): cases_of(c, 0.05 if c.arm == "b" else 0) for c in cells}
    a, b = (pd.concat([runs[arm, 0.25, s].assign(run=s) for s in (0, 1)]) for arm in "ab")
    row = one(found, "b", 0.25)
    assert row.seeds == (0, 1)
    assert (row.n, row.n_groups) == (N, N // 2)
    assert row.dice == pytest.approx(b["dice"].mean())
    assert row.by_seed == pytest.approx([runs["b", 0.25, s]["dice"].mean() for s in (0, 1)])
    means = b.groupby("id")["dice"].mean()
    groups = b.drop_duplicates("id").set_index("id").loc[means.index, "group"]
    assert (row.low, row.high) == pytest.approx(bootstrap_interval(means, groups))
    difference = means - a.groupby("id")["dice"].mean()
    assert row.difference == pytest.approx(difference.mean())
    assert (row.difference_low, row.difference_high) == pytest.approx(bootstrap_interval(difference, groups))
    assert row.p == pytest.approx(wilcoxon(difference.groupby(groups).mean()).pvalue)
    together = compare({"a": a, "b": b}, "a").set_index("name").loc["b"]
    for mine, theirs in (("seeds_low",) * 2, ("seeds_high",) * 2, ("detectable", "detectable_difference")):
        assert getattr(row, mine) == pytest.approx(together[theirs])
    assert row.means == pytest.approx({"hd95": b["hd95"].mean(), "nsd": b["nsd"].mean()})
    assert row.by_domain == pytest.approx({"clinic": b["dice"].mean()})
    alone = one(found, "b", 0.25, one_network=True)
    networks = [cases_of(c, gain)["dice"].mean() for c in cells for gain in (0.01, 0.03)
                if (c.arm, c.labelled) == ("b", 0.25)]  # fmt: skip
    assert alone.dice == pytest.approx(np.mean(networks))
    assert alone.n == N


def test_holm_is_over_a_protocol_and_target(grid: tuple[list[Cell], Path]) -> None:
    cells, out = grid
    found = rows(read_scored(cells, out, "test"), "a")
    compared = [row for row in found if not math.isnan(row.p)]
    assert len(compared) == 4
    assert [row.p_holm for row in compared] == pytest.approx(holm([row.p for row in compared]))


def test_holm_is_over_each_held_out_domain_by_itself(tmp_path: Path) -> None:
    """Two comparisons at each of two domains, and in the table of means: three families of two."""
    arms = {"a": {}, "b": {"data.size": 64}, "c": {"data.size": 96}}
    cells = expand(comparison(arms, seeds=[0, 1], targets=["delta", "alpha"]))
    for cell in cells:
        finish(cell, tmp_path, cases_of(cell, {"a": 0.0, "b": 0.01, "c": 0.02}[cell.arm]))
    runs = read_scored(cells, tmp_path, "test")
    found = rows(runs, "a")
    for family in (*([row for row in found if row.target == t] for t in ("delta", "alpha")), mean_rows(runs, "a")):
        p = [row.p for row in family if not row.is_baseline]
        assert len(p) == 2
        assert [row.p_holm for row in family if not row.is_baseline] == pytest.approx(holm(p))
    both = [row for row in found if not row.is_baseline]
    assert [row.p_holm for row in both] != pytest.approx(holm([row.p for row in both]))  # of one family of four


def test_a_baseline_at_another_fraction_is_never_paired_with(grid: tuple[list[Cell], Path]) -> None:
    cells, out = grid
    found = rows(read_scored(cells, out, "test"), "a")
    ceiling = one(found, "ceiling", 1.0)
    assert all(math.isnan(v) for v in (ceiling.difference, ceiling.p, ceiling.p_holm, ceiling.detectable))
    assert ceiling.note is None
    assert one(found, "a", 0.25).is_baseline
    # and a row of the other fraction moves no number but Holm's p
    alone = rows(read_scored([c for c in cells if c.labelled == 0.25], out, "test"), "a")
    assert one(alone, "b", 0.25).difference == one(found, "b", 0.25).difference


def test_every_state_of_a_growing_grid_has_a_table(grid: tuple[list[Cell], Path]) -> None:
    cells, out = grid
    for cell in cells[:3] + cells[4:]:  # what is left: the arm b at 0.5, seed 0
        (run_folder(out, cell) / "summary.json").rename(run_folder(out, cell) / "later.json")
    text = write_tables("t", "a", cells, out, "test")
    assert "b" in text
    assert "a, " not in text
    assert "1 of 10 runs" in (out / "table.md").read_text()
    for cell in cells:
        if (later := run_folder(out, cell) / "later.json").exists():
            later.rename(later.with_name("summary.json"))
            rows(read_scored(cells, out, "test"), "a")
    write_tables("t", "a", cells, out, "test")
    first = (out / "table.md").read_bytes()
    assert b"10 of 10 runs; commit abc1234; threads 2; device cpu; precision 32-true." in first
    names = ["table.md", "table.csv", "table.tex", "cases.csv.gz", "dice-by-labelled.svg", "index.html"]
    before = {name: (out / name).read_bytes() for name in names}
    write_tables("t", "a", cells, out, "test")
    assert before == {name: (out / name).read_bytes() for name in names}


def test_a_difference_is_over_the_seeds_that_both_have_and_says_so(tmp_path: Path) -> None:
    arms = {"a": {"seeds": [0, 1]}, "b": {"data.size": 64, "seeds": [1, 2]}, "c": {"data.size": 96, "seeds": [3]}}
    cells = expand(comparison(arms, seeds=[0], targets=[None]))
    tables = {(cell.arm, cell.seed): cases_of(cell, 0.1 if cell.arm == "b" else 0.0) for cell in cells}
    for cell in cells:
        finish(cell, tmp_path, tables[cell.arm, cell.seed])
    found = rows(read_scored(cells, tmp_path, "test"), "a")
    b, c = (one(found, arm, cells[0].labelled) for arm in "bc")
    assert (b.seeds, b.paired_seeds) == ((1, 2), (1,))
    assert b.dice == pytest.approx(np.mean([tables["b", s]["dice"].mean() for s in (1, 2)]))
    assert b.difference == pytest.approx(tables["b", 1]["dice"].mean() - tables["a", 1]["dice"].mean())
    assert math.isnan(b.seeds_low)  # one seed says nothing of other seeds
    assert c.paired_seeds == ()
    assert math.isnan(c.difference)
    write_tables("t", "a", cells, tmp_path, "test")
    text = (tmp_path / "table.md").read_text()
    assert ", seed 1 only)" in text
    assert "c is not paired with a: no seed has both" in text


def test_arms_on_other_cases_are_not_paired_and_the_table_says_so(tmp_path: Path) -> None:
    cells = expand(comparison({"a": {}, "b": {"data.size": 64}, "c": {"data.size": 96}}, targets=[None]))
    for cell in cells:
        finish(cell, tmp_path, cases_of(cell)[: N - 2 if cell.arm == "b" else N])
    found = rows(read_scored(cells, tmp_path, "test"), "a")
    note = one(found, "b", 0.4).note
    assert note is not None
    assert "b is not paired with a" in note
    assert "2 ids in one only" in note
    assert math.isnan(one(found, "b", 0.4).difference)
    assert not math.isnan(one(found, "c", 0.4).difference)
    assert note in markdown(found, [], "a", "")


def test_protocols_are_apart_and_marks_are_numbered(tmp_path: Path) -> None:
    arms: dict[str, Any] = {"a": {}, "b": {"data.split.protocol": "random"}, "c": {"data.split.protocol": "published"}}
    cells = expand(comparison(arms, targets=[None]))
    marks = {"a": None, "b": "twins", "c": "as published"}
    for cell in cells:
        finish(cell, tmp_path, cases_of(cell), mark=marks[cell.arm], protocol=cell.config.data.split.protocol)
    found = rows(read_scored(cells, tmp_path, "test"), "a")
    assert [(row.arm, row.protocol) for row in found] == [("a", "grouped"), ("b", "random"), ("c", "published")]
    assert all(math.isnan(row.difference) for row in found)
    text = markdown(found, [], "a", "")
    assert "| random [1] |" in text
    assert "| published [2] |" in text
    assert "[1] twins\n\n[2] as published" in text


def test_the_mean_over_held_out_domains_counts_each_the_same(tmp_path: Path) -> None:
    arms = {"a": {}, "b": {"data.size": 64}, "c": {"data.size": 96}}
    cells = expand(comparison(arms, seeds=[0, 1], targets=["delta", "alpha"]))
    tables = {}
    for cell in cells:
        if (cell.arm, cell.target, cell.seed) in (("b", "alpha", 1), ("c", "alpha", 0), ("c", "alpha", 1)):
            continue  # b lacks a seed at one domain, c a whole domain
        table = cases_of(cell, 0.1 if cell.arm == "b" else 0.0)[: N if cell.target == "delta" else N // 2]
        tables[cell.arm, cell.target, cell.seed] = table
        finish(cell, tmp_path, table)
    runs = read_scored(cells, tmp_path, "test")
    found = mean_rows(runs, "a")
    assert [(row.arm, row.seeds) for row in found] == [("a", (0, 1)), ("b", (0,))]
    a, b = found

    def mean(arm: str, target: str, *seeds: int) -> float:
        return float(np.mean([tables[arm, target, seed]["dice"].mean() for seed in seeds]))

    assert a.dice == pytest.approx((mean("a", "delta", 0, 1) + mean("a", "alpha", 0, 1)) / 2)
    assert b.dice == pytest.approx((mean("b", "delta", 0) + mean("b", "alpha", 0)) / 2)
    of_seed_0 = (mean("a", "delta", 0) + mean("a", "alpha", 0)) / 2  # the seed that both have: the same labelled images
    assert b.paired_seeds == (0,)
    assert b.difference == pytest.approx(b.dice - of_seed_0)
    assert b.difference_low < b.difference < b.difference_high
    assert b.p == b.p_holm
    assert (b.n, b.n_groups) == (N + N // 2, N // 2 + N // 4)
    assert b.by_domain == pytest.approx({"delta": mean("b", "delta", 0), "alpha": mean("b", "alpha", 0)})
    text = markdown(rows(runs, "a"), found, "a", "")
    assert text.index("Mean over the held-out domains") < text.index("Each held-out domain:")
    assert "leave_one_domain_out, mean of 2 targets" in text
    assert not mean_rows([run for run in runs if run.cell.target == "delta"], "a")


def test_the_files_hold_what_the_rows_hold(grid: tuple[list[Cell], Path]) -> None:
    cells, out = grid
    text = write_tables("BUSI", "a", cells, out, "test")
    found = rows(read_scored(cells, out, "test"), "a")
    table = pd.read_csv(out / "table.csv", keep_default_na=True)
    assert len(table) == len(found) == 7
    assert table["dice"].tolist() == pytest.approx([row.dice for row in found], rel=1e-5)
    assert table["predictor"].tolist() == ["one network" if row.one_network else "mean" for row in found]
    assert table["seeds"].tolist() == ["0 1"] * 7
    cases = pd.read_csv(out / "cases.csv.gz", keep_default_na=False)
    assert len(cases) == N * (len(cells) + 2 * sum(cell.arm == "b" for cell in cells))
    assert cases.columns[:7].tolist() == ["arm", "predictor", "labelled", "protocol", "target", "seed", "commit"]
    assert set(cases["predictor"]) == {"mean", "network_0", "network_1"}
    markdown_rows = [line for line in (out / "table.md").read_text().splitlines() if line.startswith("| ")]
    assert len(markdown_rows) == 1 + len(found)
    row = one(found, "b", 0.5)
    shown = f"{100 * row.difference:+.1f} ({100 * row.difference_low:+.1f} to {100 * row.difference_high:+.1f})"
    assert shown in markdown_rows[5]
    assert shown in text
    assert "one network" not in text  # a terminal is narrow
    page = Page(out / "index.html")
    assert "BUSI: test part" in page.text
    assert shown in page.text
    assert any(value.startswith("data:image/svg+xml") for value in page.values("src", "img"))


def test_the_validation_part_has_files_of_its_own(grid: tuple[list[Cell], Path]) -> None:
    cells, out = grid
    assert write_tables("t", "a", cells, out, "validation") == "no run is done yet"
    assert not list(out.glob("*validation*"))
    finish(cells[0], out, cases_of(cells[0]), part="validation")
    write_tables("t", "a", cells, out, "validation")
    assert "validation part" in (out / "table-validation.md").read_text().splitlines()[0]
    assert {path.name for path in out.glob("*validation*")} == {
        "table-validation.md", "table-validation.csv", "table-validation.tex", "cases-validation.csv.gz",
        "runs-validation.json.gz",         "dice-by-labelled-validation.svg", "index-validation.html",
    }  # fmt: skip
    assert not (out / "table.md").exists()


def test_what_the_runs_were_made_with_is_counted_where_it_differs(tmp_path: Path) -> None:
    cells = expand(comparison({"a": {}}, seeds=[0, 1, 2]))
    for cell in cells:
        finish(cell, tmp_path, cases_of(cell), environment={"threads": 1 if cell.seed == 2 else 4})
    write_tables("t", "a", cells, tmp_path, "test")
    assert "3 of 3 runs; commit abc1234; threads 4 (2 runs), 1 (1 runs)" in (tmp_path / "table.md").read_text()


def test_a_damaged_table_of_cases_is_named(grid: tuple[list[Cell], Path]) -> None:
    cells, out = grid
    (run_folder(out, cells[0]) / "cases.csv").write_text("")
    with pytest.raises(RunError, match=r"cases.csv: cannot be read .* score the run again"):
        read_scored(cells, out, "test")
    (run_folder(out, cells[0]) / "cases.csv").write_text("x,y\n")
    with pytest.raises(RunError, match=r"cases.csv: has no column id; score the run again"):
        read_scored(cells, out, "test")


def test_latex_and_markdown_escape_what_they_must() -> None:
    assert latex_text("a_b & 5 % $x^2$ {#} ~\\<>|") == (
        r"a\_b \& 5 \% \$x\textasciicircum{}2\$ \{\#\} \textasciitilde{}\textbackslash{}\textless{}\textgreater{}"
        r"\textbar{}"
    )
    values = {"one_network": False, "mark": None, "labelled": 0.25, "seeds": (0,), "n": 3, "n_groups": 3}
    values |= {
        "dice": 0.5,
        "low": 0.4,
        "high": 0.6,
        "by_seed": (0.5,),
        "means": {"hd95": 3.0},
        "by_domain": {"x|y": 0.5},
    }
    row = Row(arm="50 % | a_b", protocol="leave_one_domain_out", target="x|y", difference=-0.01, difference_low=-0.02,
              difference_high=0.01, p=0.0001, p_holm=0.0001, **values)  # type: ignore[arg-type]  # fmt: skip
    text = latex([row], [], "base_line", "A & B")
    assert r"\caption{A \& B: mean Dice" in text
    assert r"50 \% \textbar{} a\_b & 0 & 3 & 50.0 (40.0 to 60.0) & 3.0 & - & $-1.0$ ($-2.0$ to $+1.0$)" in text
    assert r"& \textless{} 0.001 \\" in text
    body = text[text.index("\\toprule") : text.index("\\bottomrule")]
    assert len({len(re.findall(r"(?<!\\)&", line)) for line in body.splitlines() if " & " in line}) == 1
    line = markdown([row], [], "a|b", "").splitlines()[2]
    assert len(re.findall(r"(?<!\\)\|", line)) == 17
    assert r"50 % \| a_b" in line
    assert "50 % | a_b" in terminal([row], [])


@pytest.mark.parametrize(("labelled", "targets"), [([0.25, 0.5], [None]), ([0.25], ["delta", "alpha"])])
def test_the_figure_names_every_arm_at_its_line(tmp_path: Path, labelled: list[float], targets: list[Any]) -> None:
    arms = {"a": {}, "50 % $x_1$ <b>": {"data.size": 64}, "无 CutMix": {"data.size": 96}}
    cells = expand(comparison(arms, labelled=labelled, seeds=[0, 1], targets=targets))
    for cell in cells:
        finish(cell, tmp_path, cases_of(cell))
    write_tables("t", "a", cells, tmp_path, "test")
    svg = (tmp_path / "dice-by-labelled.svg").read_text("utf-8")
    shown = "".join(ET.parse(io.StringIO(svg)).getroot().itertext())
    for arm in arms:
        assert shown.count(arm) >= len(targets) or arm == "a"
    assert ("labelled, % of the training images" in shown) == (len(labelled) > 1)
    assert ("mean of 2 held-out domains" in shown) == (len(targets) > 1)


def test_several_classes_have_their_dice_in_every_table(tmp_path: Path) -> None:
    network = {"network.classes": 3, "network.class_names": ["background", "left | cavity", "ring"]}
    cells = expand(comparison({"a": network, "b": network | {"data.size": 64}}, seeds=[0, 1], targets=["x", "y"]))
    tables = {}
    for cell in cells:
        cases = cases_of(cell)
        cases["dice_1"], cases["dice_2"] = cases["dice"] ** 2, cases["dice"] / 2
        finish(cell, tmp_path, cases)
        tables[cell.arm, cell.target, cell.seed] = cases
    scored = read_scored(cells, tmp_path, "test")
    found = rows(scored, "a")
    for row in found:
        own = pd.concat([tables[row.arm, row.target, seed] for seed in (0, 1)])
        assert row.by_class == pytest.approx({"left | cavity": own["dice_1"].mean(), "ring": own["dice_2"].mean()})
    for row in mean_rows(scored, "a"):
        parts = [pd.concat([tables[row.arm, t, s] for s in (0, 1)])["dice_2"].mean() for t in ("x", "y")]
        assert row.by_class["ring"] == pytest.approx(np.mean(parts))
    write_tables("t", "a", cells, tmp_path, "test")
    table = pd.read_csv(tmp_path / "table.csv")
    assert table["dice of ring"].iloc[0] == pytest.approx(found[0].by_class["ring"], abs=1e-5)
    text = (tmp_path / "table.md").read_text("utf-8")
    assert f"left \\| cavity {100 * found[0].by_class['left | cavity']:.1f}" in text
    assert "by class" in Page(tmp_path / "index.html").text


def test_one_foreground_class_has_no_column_of_classes(grid: tuple[list[Cell], Path]) -> None:
    cells, out = grid
    write_tables("t", "a", cells, out, "test")
    assert "by class" not in (out / "table.md").read_text("utf-8")
    assert not any(name.startswith("dice of") for name in pd.read_csv(out / "table.csv"))


def test_a_seed_scored_on_other_cases_is_left_out_and_named(grid: tuple[list[Cell], Path]) -> None:
    """Of one arm, and where each of two seeds has its own cases, the second."""
    cells, out = grid
    (odd,) = (cell for cell in cells if (cell.arm, cell.labelled, cell.seed) == ("b", 0.5, 1))
    path = run_folder(out, odd) / "cases.csv"
    path.write_text(path.read_text().replace("clinic 003", "clinic new"))
    shown = write_tables("grid", "a", cells, out, "test")
    assert "b" in shown
    found = rows(read_scored(cells, out, "test"), "a")
    row = one(found, "b", 0.5)
    assert row.seeds == (0,)
    assert row.paired_seeds == (0,)
    assert row.note is not None
    assert re.search(rf"b: seed 1 left out, .*delete its folder \({odd.name}\)", row.note)
    assert row.note in (out / "table.md").read_text()
    assert "left out" in (out / "index.html").read_text()
    assert one(found, "b", 0.25).seeds == (0, 1)


def test_means_over_validation_parts_that_share_images_are_no_surer_than_one(tmp_path: Path) -> None:
    """Two trainings that hold out one domain each, validated on the same images of a third."""
    cells = expand(comparison({"a": {}, "b": {"data.size": 64}}, seeds=[0], targets=["x", "y"]))
    for cell in cells:
        gain = 0.05 if cell.arm == "b" else 0.0
        cases = make_cases(np.clip(DIFFICULTY + gain + GENERATOR.normal(0, 0.04, N), 0, 1), "third", group=2)
        finish(cell, tmp_path, cases, part="validation")
    write_tables("grid", "a", cells, tmp_path, "validation")
    a, b = mean_rows(read_scored(cells, tmp_path, "validation"), "a")
    assert (a.n, a.n_groups, b.n_groups) == (N, N // 2, N // 2)
    text = (tmp_path / "table-validation.md").read_text()
    assert "Mean over the validation parts of the trainings, which share images" in text
    assert "Mean over the held-out" not in text + (tmp_path / "index-validation.html").read_text()
