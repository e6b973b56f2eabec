"""Prediction in shards: resumed, on a cluster, with a worker that dies."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from semidg.cli import main
from semidg.experiment.bundle import Bundle, save_bundle
from semidg.experiment.ray_tasks import RayTasks
from semidg.networks.ensemble import Ensemble
from semidg.networks.factory import make_pair
from semidg.report import prediction_shards
from semidg.report.prediction_jobs import find_jobs
from semidg.report.prediction_shards import Settings, predict_shards
from semidg.report.predictor import Options
from tests_support import tiny_config


def write_model(path: Path, seed: int = 0) -> Path:
    network = tiny_config().network
    save_bundle(path, Bundle(Ensemble(make_pair(network, 1, seed, 1)), network, 32, 1, {}))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "model.safetensors")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Five images, one of which cannot be read, and whose name is the beginning of another one."""
    folder = tmp_path / "images"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for name in ("a", "b", "c", "scan_2"):
        Image.fromarray(generator.integers(0, 255, (20, 24), dtype=np.uint8)).save(folder / f"{name}.png")
    (folder / "scan.png").write_bytes(b"no image")
    return folder


def table(out: Path) -> list[str]:
    return sorted(pd.read_csv(out / "predictions.csv")["mask"])


ALL = ["a_mask.png", "b_mask.png", "c_mask.png", "scan_2_mask.png"]


def test_only_what_is_missing_or_changed_is_computed_again(
    model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, computed = tmp_path / "out", []
    original = prediction_shards.predict_parts

    def counting(bundle, parts, *args, **kwargs):  # type: ignore[no-untyped-def]
        computed.extend(job.image.name for jobs in parts for job in jobs)
        return original(bundle, parts, *args, **kwargs)

    monkeypatch.setattr(prediction_shards, "predict_parts", counting)

    def predict(*, resume: bool = True, settings: Settings | None = None) -> list[str]:
        computed.clear()
        found = predict_shards(settings or Settings(model), find_jobs([images], out), out, resume=resume, size=2)
        assert len(found.problems) == 1
        assert "scan.png" in found.problems[0]
        assert sorted(row.mask for row in found.rows) == table(out) == ALL
        return sorted(computed)

    every = ["a.png", "b.png", "c.png", "scan.png", "scan_2.png"]
    assert predict() == every
    first = (out / "predictions.csv").read_bytes()
    assert predict() == ["scan.png"]  # what could not be read is tried again
    assert (out / "predictions.csv").read_bytes() == first
    (out / "b_overlay.png").unlink()
    (out / "c_mask.png").write_bytes(b"half")
    assert predict() == ["b.png", "c.png", "scan.png"]
    Image.new("L", (20, 24)).save(images / "a.png")
    assert predict() == ["a.png", "scan.png"]
    for note in out.rglob("*.json"):
        note.write_text("{")
    assert predict() == every
    assert predict(settings=Settings(model, Options(refer_below=0.5))) == every
    assert predict() == every  # the results of other options lie there now
    assert predict(resume=False) == every


def test_volumes_are_resumed_with_all_their_files(model: Path, tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(0, 255, (20, 24, 3), dtype=np.int16)
    for name in ("a", "b"):
        nibabel.Nifti1Image(voxels, np.eye(4)).to_filename(tmp_path / f"{name}.nii.gz")
    out = tmp_path / "out"

    def written(settings: Settings) -> dict[str, int]:
        jobs = find_jobs([tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"], out)
        found = predict_shards(settings, jobs, out, resume=True, size=1)
        assert (len(found.rows), found.files, found.problems) == (2, 2, [])
        return {path.name: path.stat().st_mtime_ns for path in out.glob("[ab]_*")}

    first = written(Settings(model))
    kinds = ("mask.nii.gz", "confidence.nii.gz", "overlay.png")
    assert set(first) == {f"{name}_{kind}" for name in "ab" for kind in kinds}
    assert written(Settings(model)) == first
    (out / "b_overlay.png").unlink()
    again = written(Settings(model))
    assert {name for name in again if again[name] != first[name]} == {f"b_{kind}" for kind in kinds}
    other = written(Settings(model, Options(slice_axis="x")))
    assert all(other[name] != again[name] for name in again)


def test_a_killed_prediction_goes_on_where_it_was(model: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    jobs = find_jobs([images], out)

    def dies(work):  # type: ignore[no-untyped-def]
        work[0]()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_shards(Settings(model), jobs, out, run=dies, size=2)
    assert (out / "a_mask.png").is_file()
    assert not (out / "predictions.csv").exists()
    before = (out / "a_mask.png").stat().st_mtime_ns
    predict_shards(Settings(model), jobs, out, resume=True, size=2)
    assert (out / "a_mask.png").stat().st_mtime_ns == before
    assert table(out) == ALL


def dying(folder: Path, number: int) -> Callable[[], None]:
    """Work whose worker dies the first time that it does number 1, and which refuses number 2."""

    def work() -> None:  # a closure, which Ray sends by value: its workers need not find this file
        with (folder / str(number)).open("a") as file:
            file.write("x")
        if number == 1 and (folder / "1").read_text() == "x":
            os._exit(1)
        if number == 2:
            raise ValueError("number 2 is not liked")

    return work


def test_the_shard_of_a_dead_worker_is_computed_again(address: str, tmp_path: Path) -> None:
    found = dict(RayTasks(address=address)([dying(tmp_path, k) for k in range(4)]))
    assert {number for number, error in found.items() if error is None} == {0, 1, 3}
    assert "number 2 is not liked" in str(found[2])
    assert (tmp_path / "1").read_text() == "xx"
    assert (tmp_path / "2").read_text() == "x"


def test_predict_on_a_cluster_writes_what_predict_writes(
    address: str, model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    assert main(["predict", str(model), str(images), "--out", str(here)]) == 2  # one cannot be read
    more = ["--executor", "ray", "--ray-address", address, "--shard", "2", "--workers", "2"]
    assert main(["predict", str(model), str(images), "--out", str(there), *more]) == 2
    text = capsys.readouterr()
    assert text.err.count("scan.png") == 2
    assert table(there) == table(here) == ALL
    for path in here.glob("*_mask.png"):
        assert (there / path.name).read_bytes() == path.read_bytes()
    assert main(["predict", str(model), str(images), "--out", str(there), "--resume", *more]) == 2
    assert main(["predict", str(model), str(images), "--out", str(there), "--workers", "0"]) == 2
    assert "--workers 0" in capsys.readouterr().err
