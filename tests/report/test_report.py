"""The report: one file, complete, escaped, the same every time, and true to the run folders."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from report.report_support import EVIL, Page, make_cases, make_run, make_run_with_data
from semidg.errors import ConfigError, DataError, RunError
from semidg.experiment.evaluate import write_cases
from semidg.report.blocks import Table
from semidg.report.distributions import size_names
from semidg.report.gallery import FALSE_NEGATIVE, FALSE_POSITIVE, choose, draw_cases, error_map
from semidg.report.paired import comparison
from semidg.report.report import write_report
from semidg.report.results import results
from semidg.report.runs import read_methods, why_not_paired
from semidg.report.wording import weakness

SECTIONS = ("summary", "results", "training", "distributions", "gallery", "confidence", "data", "glossary")
CHROMIUM = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory, phantom: Path) -> Path:
    """The page of a run with data, model and confidence."""
    folder = tmp_path_factory.mktemp("full")
    run = make_run_with_data(folder / "run", phantom)
    write_report([run], folder / "report.html")
    return folder / "report.html"


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of two methods with two seeds each, whose names and domains are hostile, without data."""
    folder = tmp_path_factory.mktemp("several")
    runs = [make_run(folder / f"sup{s}", s, "supervised", evil=True) for s in (0, 1)]
    better = [make_cases(seed=s, gain=0.05, evil=True) for s in (0, 1)]
    runs += [make_run(folder / f"dual{s}", s, cases=better[s], evil=True) for s in (0, 1)]
    write_report(runs, folder / "report.html")
    return folder / "report.html"


@pytest.mark.parametrize("name", ["full", "several"])
def test_page_is_one_complete_file(name: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(name)
    page = Page(path)
    sections = list(SECTIONS) if name == "full" else [*SECTIONS[:2], "comparison", *SECTIONS[2:]]
    assert page.values("id", "section") == sections
    text = path.read_text("utf-8")
    assert not re.search(r"https?:|@import|url\((?!#)", text)
    anchors = page.values("href", "a")
    assert anchors
    assert {link.removeprefix("#") for link in anchors} <= set(page.values("id"))
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert path.stat().st_size < 10e6
    assert page.tags.count("script") == 1
    assert page.tags.count("h1") == 1
    assert [p.name for p in path.parent.iterdir() if p.suffix != "" or p.name.startswith(".")] == ["report.html"]


def test_every_picture_and_chart_has_words(full: Path) -> None:
    page = Page(full)
    pictures = page.values("src", "img")
    assert len(pictures) == len(page.values("alt", "img"))
    assert all(source.startswith("data:image/jpeg;base64,/9j/") for source in pictures)
    assert len(pictures) % 5 == 0  # input, truth, prediction, confidence, errors
    assert len(pictures) >= 20
    labels = [v for t, n, v in page.attributes if t == "svg" and n == "aria-label"]
    assert len(labels) >= 10
    assert all(labels)
    for what in ("validation Dice", "cacps", "Dice by", "Reliability", "expected Dice", "Risk-coverage", "area"):
        assert any(what in label for label in labels) or what in page.text, what


def test_summary_says_what_the_numbers_say(full: Path) -> None:
    run = full.parent / "run"
    text = Page(full).text
    summary = json.loads((run / "summary.json").read_text())
    dice = summary["result"]["overall"]["dice"]
    lesions = summary["result"]["overall"]["lesions"]
    low, high = (f"{100 * v:.1f}" for v in dice["interval"])
    assert f"The mean Dice is {100 * dice['mean']:.1f} % (95 % interval {low} to {high})" in text
    assert f"Of {lesions['true']} lesions {lesions['missed']} was missed" in text
    assert "all of the domain delta, which training never saw" in text
    assert "Send the least certain 20 % to a person, and the mean Dice of the rest is 78.1 %" in text
    assert "promises 4.2 points too much" in text
    assert "fewer than 10 groups" in text  # so few images show no weak side
    assert "It is weaker on" not in text


def test_test_time_augmentation_is_told(tmp_path: Path) -> None:
    for name, said in (("none", False), ("scales", True)):
        run = make_run(tmp_path / name, augmentation=name)
        write_report([run], tmp_path / f"{name}.html", gallery=0)
        assert ("Test-time augmentation: scales." in Page(tmp_path / f"{name}.html").text) == said


def test_a_weak_side_is_named_only_where_the_intervals_part(tmp_path: Path) -> None:
    cases = make_cases(n=90)
    cases.loc[cases["domain"] == "clinic c", "dice"] *= 0.4
    run = make_run(tmp_path / "weak", cases=cases)
    said = weakness(read_methods([run])[0].lead)
    assert re.search(r"It is weaker on domain clinic c \(Dice \d\d\.\d %, .*, on domain clinic", said)
    assert "does not show a weak side by class" in said


def test_the_table_holds_the_numbers_of_the_run(full: Path) -> None:
    result = json.loads((full.parent / "run" / "summary.json").read_text())["result"]
    text = full.read_text("utf-8")
    for block in (result["overall"], *result["by_domain"].values(), *result["by_size"].values()):
        for metric, factor in (("dice", 100), ("hd95", 1), ("nsd", 100), ("area_error", 100)):
            value = factor * block[metric]["mean"]
            assert f'data-key="{value}">{value:.1f}' in text
    assert "size small" in text or "size large" in text


def test_everything_from_a_run_is_escaped(several: Path) -> None:
    page = Page(several)
    assert EVIL in page.text
    assert EVIL.count("script") * 2 < page.text.count("script")
    assert "<script>alert" not in several.read_text("utf-8")


def test_the_same_runs_give_the_same_bytes(tmp_path: Path, full: Path) -> None:
    write_report([full.parent / "run"], tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == full.read_bytes()


def test_seeds_are_pooled_and_compared_with_the_baseline(several: Path) -> None:
    page = Page(several)
    assert re.search(r"dual_level minus supervised: \+\d\.\d Dice points \(95 % interval \+\d", page.text)
    assert "On these images it is ahead." in page.text
    assert "With the choice of the seeds (2 runs)" in page.text
    assert page.text.count("(2 seeds)") >= 2
    assert "supervised, seed 1" in page.cells
    assert "baseline" in page.cells
    labels = page.values("aria-label", "svg")
    assert sum(label.startswith("Forest plot") for label in labels) == 3
    assert "No pictures" in page.text  # their data are not there
    assert "--root FOLDER" in page.text


def test_a_method_is_compared_over_the_seeds_that_both_have(tmp_path: Path) -> None:
    """Seeds draw the labelled images: a third seed of the baseline, far worse, makes no method better."""
    runs = [make_run(tmp_path / f"sup{s}", s, "supervised") for s in (0, 1)]
    runs.append(make_run(tmp_path / "sup2", 2, "supervised", cases=make_cases(seed=2, gain=-0.3)))
    runs += [make_run(tmp_path / f"dual{s}", s, cases=make_cases(seed=s, gain=0.05)) for s in (0, 1)]
    runs.append(make_run(tmp_path / "epl7", 7, "epl"))
    page = Page(_page(tmp_path, runs))
    gains = [make_cases(seed=s, gain=0.05)["dice"].to_numpy() - make_cases(seed=s)["dice"].to_numpy() for s in (0, 1)]
    assert f"dual_level minus supervised: {100 * np.mean(gains):+.1f} Dice points" in page.text
    assert "dual_level is compared with supervised over seeds 0, 1 alone, which both have; " in page.text
    assert "epl is not compared case by case: supervised has none of its seeds." in page.text


def test_the_baseline_can_be_named_by_method_or_folder(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "a", method="supervised"), make_run(tmp_path / "b"), make_run(tmp_path / "c", 1)]
    assert [m.name for m in read_methods(runs)] == ["supervised", "dual_level"]
    for name in ("dual_level", "b", "c"):
        assert [m.name for m in read_methods(runs, name)] == ["dual_level", "supervised"]
    with pytest.raises(RunError, match=r"'eplx'.*'supervised', 'dual_level'"):
        read_methods(runs, "eplx")
    with pytest.raises(RunError, match="given twice"):
        read_methods([runs[0], runs[0]])


def test_methods_that_share_a_name_are_told_apart_by_what_differs(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name) for name in ("a", "b", "c")]
    text = (runs[1] / "config.yaml").read_text()
    (runs[1] / "config.yaml").write_text(text.replace("labelled: 0.4", "labelled: 0.2"))
    (runs[2] / "config.yaml").write_text(text.replace("view_weight: 1.0", "view_weight: 4.0"))
    names = [m.name for m in read_methods(runs)]
    assert names[1].startswith("dual_level, 20 % labelled")
    assert "view_weight 4.0" in names[2]
    assert len(set(names)) == 3


def test_runs_that_do_not_fit_are_not_paired_and_the_page_says_why(tmp_path: Path) -> None:
    base = make_run(tmp_path / "base", method="supervised")
    other = make_run(tmp_path / "other", protocol="random", mark="near-duplicates may leak")
    fewer = make_run(tmp_path / "fewer", method="epl", cases=make_cases().iloc[:-4])
    page = Page(_page(tmp_path, [base, other, fewer]))
    assert "dual_level is not compared case by case: another protocol (random in place of grouped)" in page.text
    assert "epl is not compared case by case: other test images (4 images" in page.text
    assert "minus supervised" not in page.text
    assert "Read this first. dual_level: near-duplicates may leak" in page.text
    regrouped = make_cases().assign(group="one")
    again = make_run(tmp_path / "again", method="epl", cases=regrouped)
    runs = [m.lead for m in read_methods([base, again])]
    assert "groups" in (why_not_paired(*runs) or "")
    assert why_not_paired(runs[0], runs[0]) is None


def test_an_older_run_has_a_page_with_notes(tmp_path: Path) -> None:
    old = make_run(tmp_path / "old", old=True)
    page = Page(_page(tmp_path, [old]))
    for note in ("No lesions found", "No results by lesion size", "No Dice against lesion area", "was not measured"):
        assert note in page.text
    assert "HD95" in page.text
    _, table = comparison(read_methods([make_run(tmp_path / "new", method="epl"), old]))
    assert table is not None
    assert table["metric"].tolist() == ["dice", "hd95"] * 2  # the measures that both have


def test_files_that_are_not_there_leave_a_note(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", confidence=False)
    for missing in ("metrics.csv", "split/split.json", "environment.json"):
        (run / missing).unlink()
    page = Page(_page(tmp_path, [run]))
    assert page.values("id", "section") == list(SECTIONS)
    assert "metrics.csv is not there" in page.text
    assert "split/split.json is not there" in page.text


def test_errors_name_the_file_and_the_mend(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    with pytest.raises(ConfigError, match="gallery -1"):
        write_report([run], tmp_path / "x.html", gallery=-1)
    with pytest.raises(RunError, match="give run folders"):
        write_report([], tmp_path / "x.html")
    cases = (run / "cases.csv").read_text()
    (run / "cases.csv").write_text(cases.replace("id,", "name,", 1))
    with pytest.raises(RunError, match=r"cases\.csv: has no column id; .*semidg evaluate"):
        read_methods([run])
    (run / "cases.csv").write_text(cases + cases.splitlines()[-1] + "\n")
    with pytest.raises(RunError, match="one twice"):
        read_methods([run])
    (run / "cases.csv").write_text(cases.replace("0.98", "much", 1))
    with pytest.raises(RunError, match="not a readable table"):
        read_methods([run])
    (run / "summary.json").write_text("{")
    with pytest.raises(RunError, match=r"summary\.json: damaged"):
        read_methods([run])
    (run / "summary.json").unlink()
    with pytest.raises(RunError, match=r"not evaluated yet .*semidg evaluate"):
        write_report([run], tmp_path / "x.html")
    assert not (tmp_path / "x.html").exists()


def test_texts_that_look_like_numbers_stay_texts(tmp_path: Path) -> None:
    cases = make_cases()
    cases["domain"] = np.array(["001", "NA", ""])[np.arange(len(cases)) % 3]
    run = make_run(tmp_path / "run", cases=cases)
    methods = read_methods([run])
    assert set(methods[0].lead.cases["domain"]) == {"001", "NA", ""}
    areas = results(methods).blocks[0]
    assert isinstance(areas, Table)
    assert {"domain 001", "domain NA", "domain not named"} <= {row[0].text for row in areas.rows}


def test_cases_are_chosen_by_rank_alone() -> None:
    cases = pd.DataFrame({"id": list("fedcba"), "dice": [0.1, 0.3, 0.5, 0.7, 0.9, 0.9]})
    cases["expected_dice"] = [0.2, 0.9, 0.5, 0.7, 0.9, 0.9]
    chosen = dict(choose(cases, 1))
    assert chosen == {"a": ["best"], "d": ["median"], "f": ["worst"], "e": ["most over-confident"]}
    pairs = dict(choose(cases, 2))
    assert pairs["a"] == ["best 1"]
    assert pairs["e"] == ["worst 2", "most over-confident 1"]
    assert pairs["f"] == ["worst 1", "most over-confident 2"]
    assert dict(choose(cases.sample(frac=1, random_state=1), 2)) == pairs
    assert [n for n, _ in choose(cases.drop(columns="expected_dice"), 1)] == ["a", "d", "f"]
    assert len(choose(cases.iloc[:1], 3)) == 1


def test_the_error_map_tells_both_errors_apart_without_colour() -> None:
    truth, prediction = np.zeros((24, 24), np.uint8), np.zeros((24, 24), np.uint8)
    truth[2:10, 2:10], prediction[12:22, 12:22] = 1, 1
    picture = error_map(np.full((24, 24), 100, np.uint8), prediction, truth)
    missed, false = picture[4:8, 4:8].reshape(-1, 3), picture[12:22, 12:22].reshape(-1, 3)
    assert (missed == FALSE_NEGATIVE).all()  # full
    assert 0.3 < (false == FALSE_POSITIVE).all(1).mean() < 0.7  # striped
    assert (picture[0, 0] == 60).all()
    truth[:] = 255
    assert (error_map(np.full((24, 24, 3), 100, np.uint8), prediction, truth) == 60).all()


def test_a_picture_that_is_not_that_of_the_table_is_told(full: Path) -> None:
    assert "the model or the data have changed since the run was scored" in Page(full).text


def test_sizes_are_those_of_the_summary() -> None:
    areas = pd.DataFrame({"area": [0, 1e-9, 0.0199, 0.02, 0.0999, 0.1, 1]})
    assert size_names(areas).tolist() == ["none", "small", "small", "medium", "medium", "large", "large"]


def test_moved_data_are_found_by_root_and_zero_pictures_are_none(tmp_path: Path, phantom: Path) -> None:
    run = make_run_with_data(tmp_path / "run", phantom)
    config = run / "config.yaml"
    config.write_text(config.read_text().replace(str(phantom), str(tmp_path / "gone")))
    methods, cpu = read_methods([run]), torch.device("cpu")
    with pytest.raises(DataError, match=r"gone; say where they are with --root"):
        draw_cases(methods, 1, None, cpu)
    cases = draw_cases(methods, 1, phantom, cpu)
    assert [len(case.panels) + len(case.rows[0].panels) for case in cases] == [5] * len(cases)
    assert "img" not in Page(_page(tmp_path, [run], root=phantom, gallery=0)).tags
    (run / "model" / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(RunError, match="not a readable model"):
        draw_cases(methods, 1, phantom, cpu)


def test_cases_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    table = read_methods([run])[0].lead.cases
    write_cases(table, tmp_path / "again.csv")
    assert pd.read_csv(tmp_path / "again.csv").shape == pd.read_csv(run / "cases.csv").shape


PROBE = """<script>
const say = (name, value) => { const p = document.createElement("p"); p.id = "probe-" + name; p.textContent = value; document.body.append(p); };
const broken = []; addEventListener("error", (e) => broken.push(e.message || e.target.tagName), true);
addEventListener("load", () => {
  document.querySelectorAll("details").forEach((d) => { d.open = true; });
  const head = [...document.querySelectorAll("th")].filter((t) => t.textContent.startsWith("Dice"))[0];
  const column = () => [...head.closest("table").tBodies[0].rows].map((r) => r.cells[head.cellIndex].textContent.trim());
  head.querySelector("button").click(); say("down", head.getAttribute("aria-sort") + " " + column().join(" "));
  head.querySelector("button").click(); say("up", head.getAttribute("aria-sort") + " " + column().join(" "));
  const range = head.nextElementSibling; range.querySelector("button").click(); range.querySelector("button").click();
  say("range", [...head.closest("table").tBodies[0].rows].map((r) => parseFloat(r.cells[range.cellIndex].textContent)).join(" "));
  const images = [...document.images];
  say("images", images.filter((i) => i.complete && i.naturalWidth > 0).length + " of " + images.length);
  document.body.style.width = "360px"; document.body.style.padding = "16px 14px";
  const box = document.body.getBoundingClientRect().right;
  const wide = [...document.querySelectorAll("body *")].filter((e) => !e.closest(".table") && e.getBoundingClientRect().right > box + 1);
  say("overflow", wide.map((e) => e.tagName + e.className).join(" "));
  say("errors", broken.join(" "));
});
</script>"""  # noqa: E501 - JavaScript


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium or google-chrome on PATH")
@pytest.mark.parametrize("name", ["full", "several"])
def test_in_a_browser(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    path = request.getfixturevalue(name)
    copy = tmp_path / "page.html"
    copy.write_text(path.read_text("utf-8").replace("</head>", f"{PROBE}</head>", 1), "utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--enable-logging=stderr", "--window-size=500,900", "--virtual-time-budget=5000"]
    done = subprocess.run(
        [*command, "--dump-dom", copy.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    probe = dict(re.findall(r'<p id="probe-(\w+)">([^<]*)</p>', done.stdout))
    assert probe["errors"] == ""
    assert not re.search(r"CONSOLE.*(error|refused|violat)", done.stderr, re.IGNORECASE)
    order, *values = probe["down"].split()
    assert order == "descending"
    assert [float(v) for v in values] == sorted((float(v) for v in values), reverse=True)
    assert len(set(values)) > 2
    order, *values = probe["up"].split()
    assert order == "ascending"
    assert [float(v) for v in values] == sorted(float(v) for v in values)
    starts = [float(v) for v in probe["range"].split() if v != "NaN"]
    assert starts == sorted(starts)
    assert "NaN" not in probe["range"].split()[: len(starts)]  # what has no interval stays at the end
    shown, _, there = probe["images"].split()
    assert shown == there
    assert (int(there) > 0) == (name == "full")
    assert probe["overflow"] == ""


def _page(folder: Path, runs: list[Path], **options: object) -> Path:
    write_report(runs, folder / "page.html", **options)  # type: ignore[arg-type]
    return folder / "page.html"
