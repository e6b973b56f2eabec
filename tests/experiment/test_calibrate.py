"""The model to use is calibrated on the validation part, and the published protocol chooses and scores as it says."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from semidg.config import ExperimentConfig, PredictionConfig
from semidg.data.images import read_mask
from semidg.errors import RunError
from semidg.evaluation.confidence import Calibration, prediction_scores
from semidg.evaluation.metrics import case_metrics
from semidg.evaluation.predict import label_map, to_original
from semidg.evaluation.protocols import published_truth
from semidg.experiment.bundle import Bundle, load_bundle, save_bundle
from semidg.experiment.calibrate import MINIMUM, choose_augmentation, fit_calibration, write_model
from semidg.experiment.evaluate import evaluate_part, evaluate_run
from semidg.experiment.prepare import Prepared, prepare
from semidg.experiment.run import train
from semidg.experiment.scoring import predict_records, score_records
from semidg.networks.ensemble import VIEWS, Ensemble
from semidg.networks.factory import make_pair
from semidg.report.tables import summary_text
from tests_support import tiny_config

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def trained(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ExperimentConfig, Prepared]:
    """A run, its configuration and its data."""
    run = tmp_path_factory.mktemp("calibrate") / "run"
    config = tiny_config(phantom)
    train(config, run)
    return run, config, prepare(config, run)


def test_the_model_is_the_chosen_checkpoint_with_a_calibration(
    trained: tuple[Path, ExperimentConfig, Prepared],
) -> None:
    run, config, prepared = trained
    model, best = (load_bundle(run / name) for name in ("model/model.safetensors", "checkpoints/best.safetensors"))
    for name, tensor in best.ensemble.state_dict().items():
        assert torch.equal(model.ensemble.state_dict()[name], tensor)
    assert (best.calibration, best.references) == (Calibration(), None)
    assert model.calibration.part == "validation"
    assert model.calibration.n == len(prepared.split.validation)
    assert model.references is not None
    assert model.references.shape[:2] == (4, config.data.channels)
    assert model.fourier == getattr(config.method, "fourier")  # noqa: B009 - not every method has one


def test_line_is_fitted_on_scores_and_real_dice_of_validation(
    trained: tuple[Path, ExperimentConfig, Prepared], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, config, prepared = trained
    bundle = load_bundle(run / "checkpoints" / "best.safetensors")
    few = fit_calibration(bundle, config, prepared, CPU)
    assert few.n < MINIMUM
    assert (few.intercept, few.slope) == (0.0, 1.0)
    monkeypatch.setattr("semidg.experiment.calibrate.MINIMUM", 2)
    for network in bundle.ensemble.networks:  # six steps find no lesion yet
        bias = [p for name, p in network.named_parameters() if name.endswith("bias") and p.shape == (2,)][-1]
        with torch.no_grad():
            bias += torch.tensor([0.0, 0.5]) - bias
    fitted = fit_calibration(bundle, config, prepared, CPU)
    scores, dice = [], []
    for record, each in predict_records(bundle.ensemble, prepared.split.validation, prepared.cache, 4, CPU):
        truth = read_mask([prepared.index.root / m for m in record.masks])
        prediction = label_map(to_original(each.mean(0), *truth.shape))
        (score,) = prediction_scores(each.mean(0))
        if score is not None:
            scores.append(score)
            dice.append(case_metrics(prediction, truth)["dice"])
    assert len(scores) > 1
    # a least-squares line goes through the means
    assert fitted.intercept + fitted.slope * np.mean(scores) == pytest.approx(np.mean(dice), abs=1e-6)
    assert fitted.empty == 0  # every phantom image has a lesion


def test_auto_takes_the_augmentation_of_the_best_validation_dice(
    trained: tuple[Path, ExperimentConfig, Prepared],
) -> None:
    """Of networks as they are drawn, which call half of all pixels lesion."""
    run, config, prepared = trained
    auto = config.model_copy(update={"prediction": PredictionConfig(augmentation="auto")})
    best, chosen = load_bundle(run / "checkpoints" / "best.safetensors"), set()
    rows = [prepared.cache.row(record.id) for record in prepared.split.validation]
    images = torch.from_numpy(np.stack([prepared.cache.images[row] for row in rows])).permute(0, 3, 1, 2) / 255
    for seed in range(6):
        networks = make_pair(config.network, config.data.channels, seed, 1)
        with torch.no_grad():
            logits = networks[0].eval()(images).logits
            bias = [p for name, p in networks[0].named_parameters() if name.endswith("bias") and p.shape == (2,)][-1]
            bias[1] -= (logits[:, 1] - logits[:, 0]).median()
        dice = {}
        for name in VIEWS:
            found = []
            predicted = predict_records(Ensemble(networks, name), prepared.split.validation, prepared.cache, 1, CPU)
            for record, each in predicted:
                truth = read_mask([prepared.index.root / m for m in record.masks])
                found.append(case_metrics(label_map(to_original(each.mean(0), *truth.shape)), truth)["dice"])
            dice[name] = float(np.mean(found))
        bundle = replace(best, ensemble=Ensemble(networks))
        name = choose_augmentation(bundle, auto, prepared, CPU)
        assert dice[name] == pytest.approx(max(dice.values()), abs=1e-3)
        assert choose_augmentation(bundle, config, prepared, CPU) == "none"  # that of the configuration
        chosen.add(name)
    assert len(chosen) > 1
    empty = replace(prepared, split=replace(prepared.split, validation=()))
    assert choose_augmentation(bundle, auto, empty, CPU) == "none"


def test_a_model_keeps_its_augmentation_and_both_checkpoints_are_scored_with_it(
    trained: tuple[Path, ExperimentConfig, Prepared], tmp_path: Path
) -> None:
    run, config, prepared = trained
    shutil.copytree(run, tmp_path / "run")
    run = tmp_path / "run"
    mirror = config.model_copy(update={"prediction": PredictionConfig(augmentation="mirror")})
    write_model(run, mirror, prepared, CPU)
    model = load_bundle(run / "model" / "model.safetensors")
    assert model.ensemble.augmentation == "mirror"
    assert load_bundle(run / "checkpoints" / "best.safetensors").ensemble.augmentation == "none"
    summary = evaluate_run(run, mirror, prepared, CPU)
    assert summary["augmentation"] == "mirror"
    assert json.loads((trained[0] / "summary.json").read_text("utf-8"))["augmentation"] == "none"
    assert "test-time augmentation: mirror" in summary_text(summary)
    for checkpoint in ("best", "last"):
        bundle = load_bundle(run / "checkpoints" / f"{checkpoint}.safetensors")
        ensemble = Ensemble(bundle.ensemble.networks, "mirror")
        tables = score_records(ensemble, prepared.split.test, prepared.cache, prepared.index.root).tables
        written = pd.read_csv(run / "evaluation" / f"{checkpoint}-mean.csv")
        np.testing.assert_allclose(written["dice"], tables["mean"]["dice"], atol=1e-5)


def test_without_validation_part_nothing_is_calibrated(
    trained: tuple[Path, ExperimentConfig, Prepared],
) -> None:
    run, config, prepared = trained
    bundle = load_bundle(run / "checkpoints" / "best.safetensors")
    empty = replace(prepared, split=replace(prepared.split, validation=()))
    assert fit_calibration(bundle, config, empty, CPU) == Calibration()


def test_summary_and_cases_speak_of_confidence(trained: tuple[Path, ExperimentConfig, Prepared]) -> None:
    run, config, prepared = trained
    summary = json.loads((run / "summary.json").read_text("utf-8"))
    cases = pd.read_csv(run / "cases.csv", keep_default_na=False)
    assert cases["expected_dice"].between(0, 1).all()
    assert summary["protocol"] == "leave_one_domain_out"
    assert summary["mark"] is None
    assert summary["chosen_on"] == "validation part"
    confidence = summary["confidence"]
    assert confidence["temperature"] == pytest.approx(
        load_bundle(run / "model" / "model.safetensors").calibration.temperature
    )
    assert confidence["expected_dice"]["bias"]["value"] == pytest.approx(
        (cases["expected_dice"] - cases["dice"]).mean(), abs=1e-5
    )
    assert not confidence["in_sample"]
    assert evaluate_part(run, config, prepared, "validation", CPU)["confidence"]["in_sample"]
    alone = pd.read_csv(run / "evaluation" / "best-network_0.csv")
    assert "expected_dice" not in alone.columns


def test_spacing_of_the_phantom_gives_millimetres(trained: tuple[Path, ExperimentConfig, Prepared]) -> None:
    run, _, prepared = trained
    cases = pd.read_csv(run / "cases.csv", keep_default_na=False).set_index("id")
    for record in prepared.split.test:
        assert record.spacing is not None
        assert record.spacing[0] == record.spacing[1]
        assert cases.loc[record.id, "assd_mm"] == pytest.approx(
            cases.loc[record.id, "assd"] * record.spacing[0], abs=1e-5
        )


def test_a_run_of_before_the_calibration_gets_one_when_it_is_evaluated(
    trained: tuple[Path, ExperimentConfig, Prepared], tmp_path: Path
) -> None:
    run, config, prepared = trained
    model = run / "model" / "model.safetensors"
    new = load_bundle(model)
    save_bundle(model, Bundle(new.ensemble, new.network, new.size, new.channels, new.about))
    evaluate_run(run, config, prepared, CPU)
    assert load_bundle(model).calibration == new.calibration


def test_a_model_with_a_wrong_calibration_is_refused(
    trained: tuple[Path, ExperimentConfig, Prepared], tmp_path: Path
) -> None:
    good = load_bundle(trained[0] / "model" / "model.safetensors")
    save_bundle(tmp_path / "bad.safetensors", replace(good, calibration=Calibration(temperature=-1.0)))
    with pytest.raises(RunError, match=r"bad\.safetensors.*temperature"):
        load_bundle(tmp_path / "bad.safetensors")


def test_published_protocol_chooses_on_the_test_part_and_scores_resized_masks(phantom: Path, tmp_path: Path) -> None:
    split = {"protocol": "published", "test": 0.25}
    config = tiny_config(phantom, data={"root": phantom, "size": 32, "channels": 1, "split": split})
    summary: dict[str, Any] = train(config, tmp_path / "run")
    assert summary["protocol"] == "published"
    assert "not comparable" in summary["mark"]
    assert summary["chosen_on"] == "test part"
    assert summary["confidence"]["calibrated_on"] is None
    prepared = prepare(config, tmp_path / "run")
    assert prepared.split.validation == ()
    everything = {r.id for part in prepared.split.parts().values() for r in part}
    assert len(everything) == len(prepared.index.records)
    # by hand: the label map at the size the networks see, against the mask resized as published
    bundle = load_bundle(tmp_path / "run" / "model" / "model.safetensors")
    cases = pd.read_csv(tmp_path / "run" / "cases.csv", keep_default_na=False).set_index("id")
    for record, each in predict_records(bundle.ensemble, prepared.split.test, prepared.cache, 4, CPU):
        truth = published_truth(read_mask([prepared.index.root / m for m in record.masks]), 32)
        prediction = label_map(each.mean(0))
        total = int(truth.sum() + prediction.sum())
        dice = 2 * int((truth & prediction).sum()) / total if total else 1.0
        assert cases.loc[record.id, "dice"] == pytest.approx(dice, abs=1e-6)
    assert "assd_mm" not in cases.columns  # its pixels are not those of the image
    best = max(float(row) for row in pd.read_csv(tmp_path / "run" / "metrics.csv")["validation_dice"].dropna())
    assert cases["dice"].mean() == pytest.approx(best, abs=1e-5)  # the best epoch on the test part: why it is marked
