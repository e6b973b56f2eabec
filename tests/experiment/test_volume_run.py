"""A data set of volumes from training over scores to the report and a comparison of runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from report.report_support import Page
from semidg.data.lists import read_split, write_split
from semidg.evaluation.comparison import compare
from semidg.experiment.bundle import load_bundle
from semidg.experiment.calibrate import fit_calibration
from semidg.experiment.cases import cases_of
from semidg.experiment.evaluate import evaluate_part
from semidg.experiment.prepare import prepare
from semidg.experiment.run import train
from semidg.report.gallery import draw_cases
from semidg.report.report import write_report
from semidg.report.runs import read_methods
from semidg.report.scored import scored_cases, shown_plane
from tests_support import tiny_config
from volume_support import write_volumes

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two methods trained on the volumes of two domains and scored on those of the third; the first finds something."""
    folder = tmp_path_factory.mktemp("volumes")
    write_volumes(folder / "data")
    short = tiny_config().trainer.model_dump()
    longer = {"max_steps": 30, "batch_labelled": 4, "eval_every": 10}
    for method, steps in (("supervised", longer), ("dual_level", {})):
        config = tiny_config(
            folder / "data", labelled=0.8, method={"name": method}, optimiser={"lr": 0.003}, trainer=short | steps
        )
        train(config, folder / method)
    return [folder / "supervised", folder / "dual_level"]


def test_cases_are_volumes(runs: list[Path]) -> None:
    for run in runs:
        cases = pd.read_csv(run / "cases.csv", keep_default_na=False)
        assert cases["id"].tolist() == [f"delta/p{k}" for k in range(5)]
        assert cases["planes"].tolist() == [3, 4, 5, 3, 4]
        assert {"hd95_mm", "expected_dice"} <= set(cases)
        summary = json.loads((run / "summary.json").read_text("utf-8"))
        assert summary["result"]["overall"]["n"] == 5
        assert summary["result"]["overall"]["n_groups"] == 5
        assert summary["result"]["overall"]["dice"]["mean"] == pytest.approx(cases["dice"].mean(), abs=1e-6)
        counts = json.loads((run / "split" / "split.json").read_text("utf-8"))["counts"]
        assert counts["test"] == {"images": 19, "groups": 5, "domains": {"delta": 19}, "classes": {"": 19}}
        course = pd.read_csv(run / "metrics.csv")
        assert course["validation_dice"].notna().any()


def test_calibration_is_fitted_on_volumes(runs: list[Path]) -> None:
    config = read_methods(runs)[0].lead.config
    prepared = prepare(config, runs[0])
    bundle = load_bundle(runs[0] / "model" / "model.safetensors")
    volumes = cases_of(prepared.split.validation)
    assert bundle.calibration.n == len(volumes) < len(prepared.split.validation)
    assert fit_calibration(bundle, config, prepared, CPU) == bundle.calibration
    assert bundle.calibration.temperature != 1
    validated = evaluate_part(runs[0], config, prepared, "validation", CPU)
    best = pd.read_csv(runs[0] / "metrics.csv")["validation_dice"].max()
    assert best > 0.3
    assert validated["result"]["overall"]["n"] == len(volumes)
    assert validated["result"]["overall"]["dice"]["mean"] == pytest.approx(best, abs=1e-4)


def test_split_lists_tell_the_planes_of_a_file_apart(runs: list[Path], tmp_path: Path) -> None:
    prepared = prepare(read_methods(runs)[0].lead.config, runs[0])
    lines = (runs[0] / "split" / "test.txt").read_text("utf-8").splitlines()
    assert lines[1] == "delta/images/p0.nii.gz#z1\tdelta/masks/p0.nii.gz"
    write_split(prepared.split, prepared.index.root, tmp_path / "again")
    again = read_split(tmp_path / "again", prepared.index.records, prepared.index.root)
    assert again.parts() == prepared.split.parts()


def test_gallery_shows_the_plane_with_the_largest_true_area(runs: list[Path]) -> None:
    run = read_methods(runs[:1])[0].lead
    index, cases = scored_cases(run, None)
    for case in cases.values():
        assert shown_plane(run, index, case) == case.planes[len(case.planes) // 2]  # where the ellipsoid is thickest
    drawn = draw_cases(read_methods(runs), 2, None, CPU)
    assert {case.id for case in drawn} <= set(cases)
    for case in drawn:
        planes = len(cases[case.id].planes)
        assert ("plane", f"z{planes // 2}, of {planes}") in case.facts
        assert [row.name for row in case.rows] == ["supervised", "dual_level"]


def test_report_and_comparison_of_volumes(runs: list[Path], tmp_path: Path) -> None:
    write_report(runs, tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    assert len(page.values("src", "img")) >= 3 * 8
    assert "No pictures" not in page.text
    assert "scored on 5 volumes (19 planes) of the test part" in page.text
    assert "each as a whole and in three dimensions" in page.text
    tables = {run.name: pd.read_csv(run / "cases.csv", keep_default_na=False) for run in runs}
    assert tables["supervised"]["dice"].min() > 0.3
    row = compare(tables, "supervised").set_index("name").loc["dual_level"]
    assert row["n"] == 5
    assert np.isfinite(row["difference"])
