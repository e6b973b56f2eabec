"""The tables of docs/results.md come out of the cases beside them, by the files of benchmarks/comparisons."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pandas as pd
import pytest
from benchmarks.adaptation import table

from benchmarks import augmentation
from semidg.evaluation.comparison import compare
from semidg.experiment.compare import Part
from semidg.experiment.comparison_file import load_comparison
from semidg.experiment.grid import expand
from semidg.experiment.known import read_known, take_over
from semidg.report.comparison_files import write_tables

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"


def printed(name: str, arm: str) -> set[str]:
    """The numbers of the rows of an arm, with or without a word in brackets, in the section of docs/results.md that
    links to the cases ``name``."""
    sections = re.split(r"^##+ ", (ROOT / "docs" / "results.md").read_text("utf-8"), flags=re.MULTILINE)
    lines = "".join(section for section in sections if f"](results/{name})" in section).splitlines()
    rows = [line for line in lines if re.match(rf"\| {re.escape(arm)}( \(.*\))? \|", line)]
    return set(re.findall(r"\d+\.\d", " ".join(rows)))


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("busi-main", "test"),
        ("busi-methods", "test"),
        ("busi-length", "validation"),
        ("busi-tuning", "validation"),
        ("busi-parts", "validation"),
        ("busi-ablation", "validation"),
        ("busi-strong-views", "test"),
        ("busi-styles", "test"),
        ("busi-strong-views", "validation"),
        ("phantom-scanners", "test"),
    ],
)
def test_every_published_run_is_taken_over_and_makes_a_printed_row(name: str, part: Part, tmp_path: Path) -> None:
    comparison = load_comparison(ROOT / "benchmarks" / "comparisons" / f"{name}.yaml")
    cells = expand(comparison)
    known = read_known([RESULTS / name], part)
    taken = take_over(known, cells, tmp_path, part)
    assert len(taken) == len(known)  # each run is of the comparison whose name its folder has
    write_tables(comparison.name, comparison.against, cells, tmp_path, part)
    table = pd.read_csv(tmp_path / ("table.csv" if part == "test" else f"table-{part}.csv"))
    arms = {cell.arm for cell in taken}
    assert arms <= set(table["arm"])
    of_pairs = table[table["arm"].isin(arms) & (table["predictor"] == "mean")]
    for arm, rows in of_pairs.groupby("arm"):
        numbers = {f"{100 * dice:.1f}" for dice in rows["dice"]}
        assert numbers <= printed(name, str(arm)), arm


def rows_of(text: str) -> list[dict[str, str]]:
    """The rows of the tables of arms in a Markdown text, cells by heading."""
    found, headings = [], None
    for line in text.splitlines():
        if not line.startswith("|"):
            headings = None
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if headings is None:
            headings = cells
        elif headings[0] == "arm" and not set(cells[0]) <= {"-"}:
            found.append(dict(zip(headings, cells, strict=True)))
    return found


@pytest.mark.parametrize(
    ("section", "name", "part", "known", "baseline"),
    [
        ("## BUSI, 25 % labelled", "busi-main", "test", ["busi-main"], None),
        ("## BUSI, other methods and half of the labels", "busi-methods", "test", ["busi-main", "busi-methods"], None),
        ("### How long to train", "busi-length", "validation", ["busi-length"], None),
        ("### Parts of crosslight", "busi-parts", "validation", ["busi-parts", "busi-length"], None),
        ("### Parts of dual-level", "busi-ablation", "validation", ["busi-ablation"], None),
        ("### Settings of the methods", "busi-tuning", "validation", ["busi-tuning"], "epl"),
        ("## An unseen scanner", "phantom-scanners", "test", ["phantom-scanners"], None),
        ("### With FixMatch", "busi-styles", "test", ["busi-styles"], "fixmatch"),
    ],
)
def test_every_cell_of_a_published_table_is_what_the_command_shows(
    section: str, name: str, part: Part, known: list[str], baseline: str | None, tmp_path: Path
) -> None:
    """Means, intervals, differences, p values: by arm, heading and, where the table says it so, labelled fraction."""
    comparison = load_comparison(ROOT / "benchmarks" / "comparisons" / f"{name}.yaml")
    cells = expand(comparison)
    take_over(read_known([RESULTS / folder for folder in known], part), cells, tmp_path, part)
    write_tables(comparison.name, baseline or comparison.against, cells, tmp_path, part)
    made = rows_of((tmp_path / ("table.md" if part == "test" else f"table-{part}.md")).read_text("utf-8"))
    sections = re.split(r"^(?=##+ )", (ROOT / "docs" / "results.md").read_text("utf-8"), flags=re.MULTILINE)
    (text,) = [each for each in sections if each.startswith(f"{section}\n")]
    compared, arm = 0, ""
    for row in rows_of(text):
        if row["arm"] == "the same, one network":
            row["arm"] = f"{arm}, one network"
        arm = re.sub(r" \(.*\)$", "", row["arm"])
        same = [one for one in made if one["arm"] == arm and one["labelled"] == row.get("labelled", one["labelled"])]
        same = same or [one for one in made if one["arm"] == arm]
        if arm == "crosslight, strong labelled views, minus supervised, strong views":
            continue
        shared = row.keys() & same[0].keys() - {"arm", "labelled"}
        compared += len(shared)
        assert {k: row[k] for k in shared} == {k: same[0][k] for k in shared}, arm
    assert compared > 10


def test_the_table_of_the_short_training_is_that_of_its_cases() -> None:
    cases = pd.read_csv(RESULTS / "busi-25.csv.gz").rename(columns={"seed": "run"})
    tables = dict(list(cases.groupby("method")))
    found = compare(tables, "supervised").set_index("name")
    text = (ROOT / "docs" / "results.md").read_text("utf-8")
    (section,) = re.findall(r"^## BUSI, 25 % labelled, a short training\n(.*?)^Validation part", text, re.S | re.M)
    rows = rows_of(section.replace("| method |", "| arm |"))
    assert {row["arm"] for row in rows} == set(tables)

    def points(*values: float, sign: str = "+") -> list[str]:
        return [f"{100 * value:{sign}.1f}" for value in values]

    for row in rows:
        table, made = tables[row["arm"]], found.loc[row["arm"]]
        assert row["by seed"] == ", ".join(points(*table.groupby("run")["dice"].mean(), sign=""))
        by_domain = table.groupby("domain")["dice"].mean()
        assert row["by domain"] == ", ".join(f"{name} {100 * dice:.1f}" for name, dice in by_domain.items())
        assert row["HD95 px"] == f"{table['hd95'].mean():.1f}"
        assert row["Dice %"] == points(made["mean"], sign="")[0]
        assert row["95 % interval"] == " to ".join(points(made["low"], made["high"], sign=""))
        if row["arm"] == "supervised":
            continue
        middle, low, high = points(made["difference"], made["difference_low"], made["difference_high"])
        assert row["minus baseline"] == f"{middle} ({low} to {high})"
        assert row["with seeds"] == " to ".join(points(made["seeds_low"], made["seeds_high"]))
        assert row["detectable"] == points(made["detectable_difference"], sign="")[0]
        for key, heading in (("p", "p"), ("p_holm", "p Holm")):
            assert row[heading] == ("< 0.001" if made[key] < 0.001 else f"{made[key]:.3f}")
    (quoted,) = re.findall(r"\+1\.0 on the test part \(paired interval (.*?) to (.*?), Holm", text)
    again = compare(tables, "epl").set_index("name").loc["dual_level"]
    assert list(quoted) == points(again["difference_low"], again["difference_high"])


@pytest.mark.parametrize("name", ["adaptation", "adaptation-busi"])
def test_the_tables_of_adapted_models_are_those_of_their_cases(name: str) -> None:
    cases = pd.read_csv(RESULTS / name / "cases.csv.gz", keep_default_na=False)
    assert set(cases["model"]) == {"plain", "adapted"}
    text = (ROOT / "docs" / "results.md").read_text("utf-8")
    assert table(cases) in text


def test_no_published_file_names_a_place_of_a_machine() -> None:
    for path in RESULTS.rglob("*.gz"):
        text = gzip.decompress(path.read_bytes()).decode()
        assert not re.search(r"/(home|work|tmp|root|mnt)/", text), path


@pytest.mark.parametrize("name", ["augmentation", "augmentation-unseen"])
def test_the_printed_tables_of_test_time_augmentation_come_out_of_the_cases(name: str) -> None:
    cases = pd.read_csv(RESULTS / name / "cases.csv.gz", keep_default_na=False)
    test = augmentation.with_auto(cases)
    tables = [augmentation.table(test, "auto"), augmentation.against(test, "supervised, one network")]
    if name == "augmentation":
        tables.append(augmentation.against(test, "supervised"))
        tables.append(augmentation.more_labels(test))
        tables.append(augmentation.table(cases[cases["part"] == "validation"], "scales"))
    text = (ROOT / "docs" / "results.md").read_text("utf-8")
    for made in tables:
        lines = made.splitlines()
        assert len(lines) > 2
        for line in lines[2:]:
            assert line in text, line
