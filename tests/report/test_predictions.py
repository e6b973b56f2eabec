"""Predicted files against a slow plain loop, one image after the other; errors and interruptions in the middle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_erosion

from semidg.cli import main
from semidg.config_file import parse_config
from semidg.evaluation.confidence import Calibration
from semidg.experiment.bundle import Bundle, load_bundle, save_bundle, to_inference
from semidg.networks.ensemble import Ensemble
from semidg.networks.factory import make_pair
from semidg.report import predictor as predictor_module
from semidg.report.colours import class_colour, palette
from semidg.report.prediction_jobs import find_jobs
from semidg.report.prediction_shards import Settings, predict_shards
from semidg.report.predictions import predict_files
from semidg.report.predictor import Options
from tests_support import tiny_config

CPU = torch.device("cpu")


def write_model(path: Path, classes: int) -> Path:
    """A model that has learnt nothing, but whose predictions are no constant."""
    values = tiny_config().model_dump(mode="json")
    values["network"]["classes"] = classes
    network = parse_config(values, "test").network
    ensemble = Ensemble(make_pair(network, 3, 5, 2)).eval()
    x = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():  # the mean of each class is brought to 0, and the logits are spread
        for one in ensemble.networks:
            logits = one(x).logits
            layer = [m for m in one.modules() if isinstance(m, torch.nn.Conv2d) and m.out_channels == classes][-1]
            layer.weight.mul_(2 / logits.std())
            assert layer.bias is not None
            layer.bias.sub_(logits.mean((0, 2, 3))).mul_(2 / logits.std())
    calibration = Calibration(1.7, 0.1, 0.8, 0.3, "validation", 9)
    save_bundle(path, Bundle(ensemble, network, 32, 3, {}, calibration))
    return path


@pytest.fixture(scope="module", params=[2, 4])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "model.safetensors", request.param)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Eleven images of several sizes and kinds, and three files that cannot be read among them."""
    folder = tmp_path / "images"
    folder.mkdir()
    generator = np.random.default_rng(1)
    for number, (height, width) in enumerate([(40, 50), (32, 32), (20, 70), (64, 33), (90, 80)] * 2 + [(7, 9)]):
        coarse = generator.integers(0, 256, (6, 5, 3 if number % 2 else 1), dtype=np.uint8)
        picture = Image.fromarray(coarse if number % 2 else coarse[..., 0]).resize((width, height))
        picture.save(folder / f"{number:02}.png")
    for name in ("00a", "06a", "10a"):
        (folder / f"{name}.png").write_bytes((folder / "04.png").read_bytes()[:200])
    return folder


def plain_loop(bundle: Bundle, folder: Path, batch: int) -> tuple[dict[str, NDArray[Any]], pd.DataFrame]:
    """Every picture that is to be written (as RGB, masks as numbers) and the table, without any of semidg.report but
    colours; readable images in batches, as the networks may see another last digit in batches of another size. The
    networks are in the form in which they predict, of which tests/networks/test_folding.py says that it is right."""
    pictures: dict[str, NDArray[Any]] = {}
    rows = []
    files = sorted(folder.glob("*.png"))
    for start in range(0, len(files), batch):
        loaded = []
        for path in files[start : start + batch]:
            try:
                loaded.append((path, np.asarray(Image.open(path).convert("RGB"))))
            except OSError:
                continue
        if not loaded:
            continue
        small = [np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BILINEAR)) for _, image in loaded]
        x = torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).float() / 255
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            networks = to_inference(bundle.ensemble, torch.device("cpu")).networks
            mean = torch.stack([F.softmax(one(x).logits, 1) for one in networks]).mean(0)
        for (path, image), p in zip(loaded, mean, strict=True):
            rows.append({"image": str(path), **_one(bundle.calibration, path.stem, image, p, pictures)})
    return pictures, pd.DataFrame(rows).sort_values(["expected_dice", "mask"], kind="stable")


def _one(
    calibration: Calibration, name: str, image: NDArray[Any], p: torch.Tensor, pictures: dict[str, NDArray[Any]]
) -> dict[str, Any]:
    height, width = image.shape[:2]
    classes = len(p)

    def resized(maps: torch.Tensor) -> NDArray[Any]:
        shrinks = height < 32 or width < 32
        if (height, width) == (32, 32):
            return maps.numpy()
        return F.interpolate(maps[None], (height, width), mode="bilinear", antialias=shrinks)[0].numpy()

    labels = resized(p).argmax(0)
    tempered = torch.softmax(p.clamp_min(1e-7).log() / calibration.temperature, 0)
    certain = ((classes * tempered.amax(0) - 1) / (classes - 1)).clamp(0, 1)
    pictures[f"{name}_confidence.png"] = mpl.colormaps["cividis"](resized(certain[None])[0], bytes=True)[..., :3]
    drawn = image.astype(np.float32)
    for number in range(1, classes):
        inside, colour = labels == number, np.array(class_colour(number), np.float32)
        line = inside & ~binary_erosion(inside, border_value=1)
        drawn[inside] = 0.7 * drawn[inside] + 0.3 * colour
        drawn[line] = colour
    pictures[f"{name}_overlay.png"] = drawn.round().clip(0, 255).astype(np.uint8)
    pictures[f"{name}_mask.png"] = labels * (255 if classes == 2 else 1)
    at_networks = p.numpy().argmax(0)
    line_of = []
    for number in range(1, classes):
        inside = at_networks == number
        score = float(p[number][torch.from_numpy(inside)].double().mean()) if inside.any() else None
        value = calibration.empty if score is None else calibration.intercept + calibration.slope * score
        line_of.append(min(1.0, max(0.0, value)))
    return {
        "mask": f"{name}_mask.png",
        "expected_dice": float(np.mean(line_of)),
        "foreground": float((labels > 0).mean()),
    }


def check(out: Path, pictures: dict[str, NDArray[Any]], classes: int) -> None:
    assert {path.name for path in out.glob("*_*.png")} == set(pictures)
    for name, expected in pictures.items():
        with Image.open(out / name) as picture:
            if name.endswith("_mask.png"):
                assert picture.mode == ("L" if classes == 2 else "P")
                if classes > 2:
                    colours = palette(classes)[expected]
                    np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), colours, name)
                found = np.asarray(picture)
            else:
                found = np.asarray(picture.convert("RGB"))
            np.testing.assert_array_equal(found, expected, name)


@pytest.mark.parametrize("threads", [1, 3])
def test_files_are_those_of_a_plain_loop(model: Path, images: Path, tmp_path: Path, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as each batch has
    try:
        bundle = load_bundle(model)
        pictures, table = plain_loop(bundle, images, 4)
        assert len({p.tobytes() for name, p in pictures.items() if "mask" in name}) == 11, "all masks are alike"
        out = tmp_path / "out"
        limit = float(table["expected_dice"].iloc[[4, 5]].mean())
        table["refer"] = table["expected_dice"] < limit
        options = Options(4, threads, refer_below=limit)
        steps: list[tuple[int, int]] = []
        found = predict_shards(
            Settings(model, options), find_jobs([images], out), out, size=8, progress=lambda *step: steps.append(step)
        )
        check(out, pictures, bundle.network.classes)
        assert (out / "predictions.csv").read_text() == table.to_csv(index=False, float_format="%.6f")
        assert table["refer"].sum() == 5
        assert [Path(line.partition(":")[0]).stem for line in found.problems] == ["00a", "06a", "10a"]
        assert found.files == 11
        assert steps == sorted(steps)
        assert steps[-1] == (14, 14)
        assert (out / "legend.png").exists() == (bundle.network.classes > 2)
        again = predict_files(bundle, find_jobs([images], tmp_path / "two"), tmp_path / "two", CPU, options)
        assert again.problems == found.problems
        assert (tmp_path / "two" / "predictions.csv").read_bytes() == (out / "predictions.csv").read_bytes()
    finally:
        torch.set_num_threads(before)


def test_masks_alone(model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, alone = tmp_path / "whole", tmp_path / "alone"
    for out, more in ((whole, []), (alone, ["--masks-only"]), (alone, ["--masks-only", "--resume"])):
        assert main(["predict", str(model), str(images), "--out", str(out), *more]) == 2
    assert "each as _mask\n" in capsys.readouterr().out
    names = {path.name for path in alone.glob("*.png")}
    assert names == {path.name for path in whole.glob("*_mask.png")} | {path.name for path in whole.glob("legend.png")}
    assert all((alone / name).read_bytes() == (whole / name).read_bytes() for name in names)
    assert (alone / "predictions.csv").read_bytes() == (whole / "predictions.csv").read_bytes()
    assert main(["predict", str(model), str(images), "--out", str(alone), "--resume"]) == 2  # now with all pictures
    assert {path.name for path in alone.glob("*.png")} == {path.name for path in whole.glob("*.png")}


def test_the_augmentation_is_that_of_the_model_or_of_the_call(model: Path, images: Path, tmp_path: Path) -> None:
    bundle = load_bundle(model)
    mirror = tmp_path / "mirror.safetensors"
    save_bundle(mirror, replace(bundle, ensemble=Ensemble(bundle.ensemble.networks, "mirror")))
    asked = {"plain": (model, []), "own": (mirror, []), "none": (mirror, ["--augmentation", "none"])}
    asked["told"] = model, ["--augmentation", "mirror"]
    for name, (of, more) in asked.items():
        assert main(["predict", str(of), str(images), "--out", str(tmp_path / name), *more]) == 2
    tables = {name: (tmp_path / name / "predictions.csv").read_text("utf-8") for name in asked}
    assert tables["own"] == tables["told"] != tables["plain"] == tables["none"]


def test_an_interruption_leaves_whole_files_and_resume_goes_on(
    model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once, out = tmp_path / "once", tmp_path / "out"
    options = Options(2, 2)
    predict_shards(Settings(model, options), find_jobs([images], once), once, size=4)
    save = predictor_module.save_png
    saved: list[str] = []

    def interrupted(array: Any, path: Path, *more: Any) -> None:
        if path.name == "08_overlay.png":  # of the third shard
            raise KeyboardInterrupt
        save(array, path, *more)

    def counted(array: Any, path: Path, *more: Any) -> None:
        saved.append(path.name)
        save(array, path, *more)

    monkeypatch.setattr(predictor_module, "save_png", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict_shards(Settings(model, options), find_jobs([images], out), out, size=4)
    assert not list(out.rglob("*.part"))
    assert not (out / "predictions.csv").exists()
    written = [path.name for path in out.glob("*_*.png")]
    assert 21 <= len(written) < 33
    assert all((out / name).read_bytes() == (once / name).read_bytes() for name in written)
    monkeypatch.setattr(predictor_module, "save_png", counted)
    predict_shards(Settings(model, options), find_jobs([images], out), out, size=4, resume=True)
    assert "08_overlay.png" in saved
    assert not {name for name in saved if name < "06a"}, "the first two shards are noted"
    files = sorted(path.name for path in once.iterdir() if path.is_file())
    assert sorted(path.name for path in out.iterdir() if path.is_file()) == files
    assert all((out / name).read_bytes() == (once / name).read_bytes() for name in files if name.endswith(".png"))
    tables = [pd.read_csv(folder / "predictions.csv") for folder in (out, once)]
    pd.testing.assert_frame_equal(*tables)


@pytest.mark.parametrize("shard", ["1", "64"])
def test_a_frame_never_becomes_the_result_of_another_file(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], shard: str
) -> None:
    """The film and the picture called like its first frame are in one shard, or in two."""
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    pages = [Image.fromarray(np.random.default_rng(k).integers(0, 256, (20, 30), dtype=np.uint8)) for k in range(3)]
    pages[0].save(source / "scan.tif", save_all=True, append_images=pages[1:2])
    pages[2].save(source / "scan_f0.png")
    assert main(["predict", str(model), str(source), "--out", str(out), "--shard", shard]) == 2
    assert "scan.tif:f0: would become" in capsys.readouterr().err
    masks = pd.read_csv(out / "predictions.csv")["mask"].tolist()
    assert sorted(masks) == ["scan_f0_mask.png", "scan_f1_mask.png"]
    alone = tmp_path / "alone"
    assert main(["predict", str(model), str(source / "scan_f0.png"), "--out", str(alone)]) == 0
    assert (alone / "scan_f0_mask.png").read_bytes() == (out / "scan_f0_mask.png").read_bytes()


def test_the_folder_of_results_may_hold_the_images_but_not_be_theirs(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "scans" / "in"
    source.mkdir(parents=True)
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(source / "a.png")
    assert main(["predict", str(model), str(source), "--out", str(tmp_path / "scans")]) == 0
    assert (tmp_path / "scans" / "a_mask.png").is_file()
    assert main(["predict", str(model), str(source), "--out", str(source)]) == 2
    assert "is the folder of the images; choose another" in capsys.readouterr().err
    assert main(["predict", str(model), str(source), "--out", str(source / "out")]) == 0
    assert main(["predict", str(model), str(source), "--out", str(source / "out")]) == 0  # not its own results
    assert pd.read_csv(source / "out" / "predictions.csv")["image"].tolist() == [str(source / "a.png")]
    assert main(["predict", str(model), str(source), "--out", str(tmp_path / "x"), "--batch", "0"]) == 2
    assert "--batch 0: at least 1 is needed" in capsys.readouterr().err


def test_an_image_that_changes_while_its_shard_is_computed_is_computed_again(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    old, new = (np.random.default_rng(k).integers(0, 256, (20, 30), dtype=np.uint8) for k in (1, 2))
    Image.fromarray(old).save(source / "a.png")
    save = predictor_module.save_png

    def late(array: Any, path: Path, *more: Any) -> None:
        save(array, path, *more)
        Image.fromarray(new).save(source / "a.png", compress_level=0)

    jobs = find_jobs([source], out)
    with monkeypatch.context() as patch:
        patch.setattr(predictor_module, "save_png", late)
        predict_shards(Settings(model, Options(2, 1)), jobs, out)
    of_old = (out / "a_confidence.png").read_bytes()
    predict_shards(Settings(model, Options(2, 1)), jobs, out, resume=True)
    assert (out / "a_confidence.png").read_bytes() != of_old
