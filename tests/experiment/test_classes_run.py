"""Four named classes and pixels that are not known, from training to prediction, report and comparison."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from report.report_support import Page
from semidg.cli import main
from semidg.data.phantom import write_phantom
from semidg.data.phantom_cardiac import CLASS_NAMES
from semidg.data.reading import record_mask
from semidg.errors import DataError
from semidg.evaluation.metrics import case_metrics
from semidg.evaluation.predict import label_map, to_original
from semidg.experiment.bundle import load_bundle
from semidg.experiment.prepare import prepare
from semidg.experiment.run import train
from semidg.experiment.scoring import predict_records
from semidg.report.report import write_report
from semidg.report.runs import read_methods
from semidg.report.tables import class_text
from semidg.types import IGNORE_INDEX
from tests_support import tiny_config

CPU = torch.device("cpu")
IGNORE = 9


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hearts in the grey levels of their classes, which forty steps can teach; in every mask a stripe is not known."""
    root = tmp_path_factory.mktemp("hearts") / "data"
    write_phantom(root, 6, 64, anatomy="cardiac")
    for path in root.glob("*/masks/*.png"):
        mask = np.array(Image.open(path))
        noise = np.random.default_rng(mask.sum()).normal(0, 12, mask.shape)
        grey = np.array([40, 100, 230, 170])[mask] + noise
        Image.fromarray(grey.clip(0, 255).astype(np.uint8)).save(path.parents[1] / "images" / path.name)
        mask[28:33] = IGNORE
        Image.fromarray(mask).save(path)
    return root


@pytest.fixture(scope="module")
def runs(data: Path) -> list[Path]:
    """Two methods, every boundary term and contrast in the second."""
    network = tiny_config().network.model_dump() | {"classes": 4, "class_names": CLASS_NAMES}
    settings = tiny_config(data).data.model_dump() | {"ignore_label": IGNORE}
    boundary = {"edge_weight": 0.1, "distance_weight": 1.0, "hausdorff_weight": 0.1}
    full = {"name": "epl", "boundary": boundary, "contrastive_weight": 0.1, "ramp": {"warmup": 0.0, "end": 0.5}}
    short = tiny_config().trainer.model_dump()
    longer = short | {"max_steps": 40, "batch_labelled": 4, "eval_every": 20}
    made = []
    for method, trainer in (({"name": "supervised"}, longer), (full, short)):
        config = tiny_config(
            data=settings, network=network, method=method, trainer=trainer, labelled=0.9, optimiser={"lr": 0.004}
        )
        train(config, data.parent / str(method["name"]))
        made.append(data.parent / str(method["name"]))
    return made


def test_cases_and_summary_hold_every_class(runs: list[Path]) -> None:
    cases = pd.read_csv(runs[0] / "cases.csv", keep_default_na=False)
    summary = json.loads((runs[0] / "summary.json").read_text("utf-8"))
    assert summary["classes"] == list(CLASS_NAMES)
    overall = summary["result"]["overall"]
    for number in (1, 2, 3):
        for metric in ("dice", "hd95", "nsd", "assd_mm"):
            block = overall[f"{metric}_{number}"]
            assert block["mean"] == pytest.approx(cases[f"{metric}_{number}"].mean(), abs=1e-5)
            assert block["interval"][0] <= block["mean"] <= block["interval"][1]
    np.testing.assert_allclose(cases["dice"], cases[["dice_1", "dice_2", "dice_3"]].mean(axis=1), atol=1e-6)
    assert cases["dice_1"].mean() > 0.3  # it has learnt something
    assert "left cavity" in class_text(summary)
    assert f"{100 * overall['dice_2']['mean']:.1f}" in class_text(summary)


def test_pixels_that_are_not_known_are_in_no_metric(runs: list[Path]) -> None:
    config = read_methods(runs)[0].lead.config
    prepared = prepare(config, runs[0])
    assert {record.ignore for record in prepared.index.records} == {IGNORE}
    cases = pd.read_csv(runs[0] / "cases.csv", keep_default_na=False).set_index("id")
    bundle = load_bundle(runs[0] / "model" / "model.safetensors")
    for record, each in predict_records(bundle.ensemble, prepared.split.test, prepared.cache, 4, CPU):
        truth = record_mask(prepared.index.root, record, 4)
        assert (truth[28:33] == IGNORE_INDEX).all()
        assert (truth[:28] != IGNORE_INDEX).all()
        prediction = label_map(to_original(each.mean(0), *truth.shape))
        prediction[28:33] = np.random.default_rng(0).integers(0, 4, prediction[28:33].shape)  # nobody looks here
        assert case_metrics(prediction, truth, 4)["dice"] == pytest.approx(cases.loc[record.id, "dice"], abs=1e-4)


def test_the_loss_does_not_see_pixels_that_are_not_known(runs: list[Path], data: Path) -> None:
    config = read_methods(runs)[0].lead.config
    cache = prepare(config, runs[0]).cache
    assert set(np.unique(cache.masks)) == {0, 1, 2, 3, IGNORE_INDEX}
    course = pd.read_csv(runs[1] / "metrics.csv")
    for term in ("supervised", "edge", "boundary", "hausdorff", "contrastive", "cacps"):
        assert course[term].notna().all()
    assert course["contrastive"].iloc[-1] > 0


def test_report_names_classes_and_compares_them(runs: list[Path], tmp_path: Path) -> None:
    write_report(runs[:1], tmp_path / "one.html")
    page = Page(tmp_path / "one.html")
    assert "Class by class: how well the areas agree" in page.text
    assert "It is the mean over the classes: left cavity" in page.text
    assert "filled in the colours of the classes" in page.text
    assert "No pictures" not in page.text
    assert {"left cavity", "myocardium", "right cavity"} <= set(page.cells)
    assert {"#e69f00", "#009e73", "#cc79a7"} <= set(page.values("fill", "rect"))
    write_report(runs, tmp_path / "two.html")
    page = Page(tmp_path / "two.html")
    assert "Paired comparison, class by class" in page.text
    assert "Dice of myocardium, %" in page.cells


def test_prediction_has_a_palette_and_a_legend(
    runs: list[Path], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load_bundle(runs[0] / "model" / "model.safetensors").network.names == CLASS_NAMES
    image = data / "delta" / "images" / "case_000.png"
    assert main(["predict", str(runs[0]), str(image), "--out", str(tmp_path / "out")]) == 0
    assert "legend.png: colours of left cavity, myocardium, right cavity" in capsys.readouterr().out
    with Image.open(tmp_path / "out" / "case_000_mask.png") as mask:
        assert mask.mode == "P"
        assert set(np.unique(np.asarray(mask))) <= {0, 1, 2, 3}
    assert (tmp_path / "out" / "legend.png").is_file()


def test_a_mask_without_a_known_pixel_is_named(runs: list[Path], data: Path, tmp_path: Path) -> None:
    config = read_methods(runs)[0].lead.config
    shutil.copytree(data, tmp_path / "data")
    blank = tmp_path / "data" / "delta" / "masks" / "case_003.png"
    size = Image.open(tmp_path / "data" / "delta" / "images" / "case_003.png").size
    Image.fromarray(np.full(size[::-1], IGNORE, np.uint8)).save(blank)
    moved = config.model_copy(update={"data": config.data.model_copy(update={"root": tmp_path / "data"})})
    with pytest.raises(DataError, match=r"(?s)delta/case_003: no pixel of its mask is known.*data.ignore_label"):
        train(moved, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    thin = np.full(size[::-1], IGNORE, np.uint8)
    thin[1, 0] = 1  # between the pixels that the nearest neighbours at 32 x 32 take
    Image.fromarray(thin).save(blank)
    with pytest.raises(DataError, match=r"(?s)case_003: none of the known pixels .* data.size 32; choose a larger"):
        train(moved, tmp_path / "run")
