"""semidg predict on volumes and films, and a run from volumes to masks, by a network without training to speak of."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from PIL import Image

from data.support import save_dicom, save_itk, save_nifti, save_series, square, texture
from semidg.cli import main

TINY = [
    "--data.size", "32", "--data.channels", "1", "--data.split.target", "b", "--labelled", "1",
    "--network.encoder", "tu-test_efficientnet", "--network.weights", "none",
    "--network.atrous-rates", "1", "2", "3",
    "--trainer.max-steps", "2", "--trainer.eval-every", "2", "--trainer.checkpoint-every", "2",
    "--trainer.batch-labelled", "2", "--trainer.batch-unlabelled", "2", "--trainer.threads", "1",
    "--trainer.accelerator", "cpu",
]  # fmt: skip


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight volumes (40, 30, 5) of two hospitals with masks."""
    root = tmp_path_factory.mktemp("volumes")
    for number in range(8):
        folder = root / "ab"[number % 2]
        voxels = np.stack([texture(100 * number + n).T for n in range(5)], -1).astype(np.int16) - 50
        mask = np.stack([square(at=3 + n).T // 255 for n in range(5)], -1)
        save_nifti(folder / "images" / f"{number}.nii.gz", voxels, (0.5, 0.4, 3))
        save_nifti(folder / "masks" / f"{number}.nii.gz", mask, (0.5, 0.4, 3))
    return root


@pytest.fixture(scope="module")
def run(volumes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run trained by the command line."""
    out = tmp_path_factory.mktemp("cli") / "run"
    assert main(["train", "phantom", "--data.root", str(volumes), "--out", str(out), *TINY]) == 0
    return out


@pytest.mark.parametrize("name", ["case.mha", "case.mhd", "case.nrrd"])
@pytest.mark.parametrize("shape", [(21, 17, 4), (21, 17), (21, 17, 1), (9, 8, 3, 2)])
def test_masks_of_metaimages_and_nrrds_lie_on_them(
    run: Path, tmp_path: Path, name: str, shape: tuple[int, ...]
) -> None:
    """As SimpleITK has it: size, spacing, origin and directions of the mask are those of its image."""
    voxels = np.random.default_rng(0).normal(0, 300, shape).astype(np.float32)
    turned = {2: [0.0, 1, -1, 0], 3: [0.0, -1, 0, 0.8, 0, 0.6, -0.6, 0, 0.8], 4: np.eye(4).ravel()}[len(shape)]
    geometry = {"spacing": (0.5, 0.7, 3, 2.5), "origin": (7, -8, 9, 0)}
    geometry = {key: value[: len(shape)] for key, value in geometry.items()} | {"direction": turned}
    path, out = save_itk(tmp_path / name, voxels, True, **geometry), tmp_path / "out"
    assert main(["predict", str(run), str(path), "--out", str(out), "--batch", "3"]) == 0
    image, mask, confidence = (
        sitk.ReadImage(str(file)) for file in (path, out / "case_mask.nii.gz", out / "case_confidence.nii.gz")
    )
    for found in (mask, confidence):
        assert found.GetSize() == image.GetSize()
        assert found.GetSpacing() == pytest.approx(image.GetSpacing())
        assert found.GetOrigin() == pytest.approx(image.GetOrigin(), abs=1e-5)
        assert found.GetDirection() == pytest.approx(image.GetDirection(), abs=1e-6)
    assert set(np.unique(sitk.GetArrayFromImage(mask))) <= {0, 1}
    assert 0 < sitk.GetArrayFromImage(confidence).max() <= 1


def test_a_split_keeps_the_slices_of_a_volume_together(run: Path) -> None:
    table = pd.read_csv(run / "index.csv")
    assert len(table) == 40
    assert table.groupby("image")["group"].nunique().max() == 1
    assert table["frame"].str.fullmatch(r"z\d").all()


@pytest.mark.parametrize("shape", [(21, 17, 4), (21, 17), (9, 8, 3, 2), (21, 17, 4, 1)])
def test_a_volume_gives_a_mask_and_a_confidence_with_its_geometry(
    run: Path, tmp_path: Path, shape: tuple[int, ...]
) -> None:
    voxels = np.random.default_rng(0).normal(0, 300, shape).astype(np.float32)
    affine = np.array([[0, -0.5, 0, 7], [0.7, 0, 0, 8], [0, 0, 3, 9], [0, 0, 0, 1.0]])
    nib.save(nib.Nifti1Image(voxels, affine), tmp_path / "case 1.nii.gz")
    out = tmp_path / "out"
    assert main(["predict", str(run), str(tmp_path / "case 1.nii.gz"), "--out", str(out), "--batch", "3"]) == 0
    names = {"case 1_mask.nii.gz", "case 1_confidence.nii.gz", "case 1_overlay.png", "predictions.csv"}
    assert {path.name for path in out.glob("[!.]*")} == names
    mask, confidence = (nib.load(out / f"case 1_{kind}.nii.gz") for kind in ("mask", "confidence"))
    for image in (mask, confidence):
        assert image.shape == shape
        assert np.allclose(image.affine, affine)
    labels, certain = np.asarray(mask.dataobj), np.asarray(confidence.dataobj)
    assert labels.dtype == np.uint8
    assert set(np.unique(labels)) <= {0, 1}
    assert certain.min() >= 0
    assert 0 < certain.max() <= 1
    table = pd.read_csv(out / "predictions.csv")
    assert len(table) == 1
    assert table["mask"][0] == "case 1_mask.nii.gz"
    assert table["foreground"][0] == pytest.approx((labels > 0).mean(), abs=1e-6)
    assert 0 <= table["expected_dice"][0] <= 1
    with Image.open(out / "case 1_overlay.png") as picture:
        assert picture.size == shape[:2]


def test_slices_are_predicted_as_pictures_of_them_are(run: Path, tmp_path: Path) -> None:
    """The slices of a volume, written as PNG by the same grey rule, get the same masks."""
    voxels = np.stack([texture(n).T for n in range(3)], -1)
    low, high = np.percentile(voxels, (0.5, 99.5))
    grey = np.rint(np.clip((voxels - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    save_nifti(tmp_path / "in" / "v.nii", voxels, (1, 1, 3))
    for n in range(3):
        Image.fromarray(np.ascontiguousarray(grey[..., n].T)).save(tmp_path / "in" / f"s{n}.png")
    out = tmp_path / "out"
    assert main(["predict", str(run), str(tmp_path / "in"), "--out", str(out)]) == 0
    labels = np.asarray(nib.load(out / "v_mask.nii.gz").dataobj)
    for n in range(3):
        assert (labels[..., n] == (np.asarray(Image.open(out / f"s{n}_mask.png")) > 0).T).all()


def test_a_dicom_gives_pictures_and_a_film_those_of_each_frame(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    save_dicom(folder / "single.dcm", texture(1))
    save_dicom(folder / "film.dcm", np.stack([texture(n) for n in range(11)]))
    save_nifti(folder / "cut.nii.gz", np.random.default_rng(0).normal(size=(9, 9, 9)))
    (folder / "cut.nii.gz").write_bytes((folder / "cut.nii.gz").read_bytes()[:-2000])
    (folder / "empty.dcm").touch()
    save_nifti(folder / "single_mask.nii.gz", np.zeros((3, 3, 3), np.uint8))  # passed over: a mask
    assert main(["predict", str(run), str(folder), "--out", str(out), "--batch", "4"]) == 2
    text = capsys.readouterr()
    assert "2 of 4 images" in text.out
    assert text.err.count("semidg: error:") == 2
    assert "cut.nii.gz" in text.err
    assert "empty.dcm" in text.err
    names = {f"film_f{n:02}" for n in range(11)} | {"single"}
    wanted = {f"{name}_{kind}.png" for name in names for kind in ("mask", "confidence", "overlay")}
    assert {path.name for path in out.glob("[!.]*")} == wanted | {"predictions.csv"}
    rows = pd.read_csv(out / "predictions.csv")
    assert set(rows["image"]) == {str(folder / "single.dcm")} | {f"{folder / 'film.dcm'}:f{n}" for n in range(11)}


def test_a_frame_does_not_take_the_place_of_another_file(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    save_dicom(folder / "x.dcm", np.stack([texture(n) for n in range(2)]))
    save_dicom(folder / "x_f1.dcm", texture(9, width=9))
    assert main(["predict", str(run), str(folder), "--out", str(out)]) == 2
    text = capsys.readouterr()
    assert "x.dcm:f1: would become" in text.err
    assert "2 of 2 images" in text.out
    with Image.open(out / "x_f1_mask.png") as picture:
        assert picture.width == 9
    assert len(pd.read_csv(out / "predictions.csv")) == 2


def test_the_axis_is_that_of_the_call(run: Path, tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "v.nii", np.random.default_rng(0).normal(size=(20, 12, 6)), (1, 1, 3))
    assert main(["predict", str(run), str(path), "--out", str(tmp_path / "o"), "--slice-axis", "x"]) == 0
    with Image.open(tmp_path / "o" / "v_overlay.png") as picture:
        assert picture.size == (12, 6)


@pytest.mark.parametrize("named", ["folder", "above"])
def test_a_dicom_series_gives_one_mask_where_its_slices_lie(run: Path, tmp_path: Path, named: str) -> None:
    stack = np.stack([texture(n) for n in range(4)])
    save_series(tmp_path / "in" / "p 1", stack)
    save_dicom(tmp_path / "in" / "p 1" / "report.dcm", texture(9))
    out = tmp_path / "out"
    given = tmp_path / "in" / "p 1" if named == "folder" else tmp_path / "in"
    assert main(["predict", str(run), str(given), "--out", str(out), "--batch", "3"]) == 0
    table = pd.read_csv(out / "predictions.csv")
    other = "report_mask.png" if named == "folder" else "p 1/report_mask.png"
    assert set(table["mask"]) == {"p 1_mask.nii.gz", other}
    assert len(list(out.rglob("*_mask.*"))) == 2
    mask = nib.load(out / "p 1_mask.nii.gz")
    assert mask.shape == (40, 30, 4)
    # ImagePositionPatient (-10, -20, 5), 0.25 mm to the left, 0.5 mm to the back, 3 mm to the head
    expected = [[-0.25, 0, 0, 10], [0, -0.5, 0, 20], [0, 0, 3, 5], [0, 0, 0, 1]]
    assert np.allclose(mask.affine, expected)
    assert mask.header.get_xyzt_units()[0] == "mm"
    with Image.open(out / "p 1_overlay.png") as picture:
        assert picture.size == (40, 30)
    flat = save_nifti(tmp_path / "same.nii", stack.transpose(2, 1, 0))
    assert main(["predict", str(run), str(flat), "--out", str(tmp_path / "flat")]) == 0
    maps = [np.asarray(nib.load(path).dataobj) for path in sorted(tmp_path.rglob("*_confidence.nii.gz"))]
    assert len(maps) == 2
    assert np.abs(maps[0] - maps[1]).max() < 0.2 * np.ptp(maps[0]) + 0.02  # 8-bit DICOM is not stretched, NIfTI is


def test_resume_computes_a_series_again_if_any_of_its_slices_changed(run: Path, tmp_path: Path) -> None:
    paths = save_series(tmp_path / "in" / "p", np.stack([texture(n) for n in range(3)]))
    arguments = ["predict", str(run), str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--resume"]
    assert main(arguments) == 0
    written = tmp_path / "out" / "p_mask.nii.gz"
    first = written.stat().st_mtime_ns
    assert main(arguments) == 0
    assert written.stat().st_mtime_ns == first
    changed = save_series(tmp_path / "new", np.stack([texture(30 + n) for n in range(3)]))
    changed[1].replace(paths[1])
    assert main(arguments) == 0
    assert written.stat().st_mtime_ns != first


def test_a_series_with_a_gap_is_told_and_others_are_predicted(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_series(tmp_path / "in" / "bad", np.stack([texture(n) for n in range(4)]))
    (tmp_path / "in" / "bad" / "2.dcm").unlink()
    save_series(tmp_path / "in" / "two", np.stack([texture(n) for n in range(3)]), "1.9")
    for path in save_series(tmp_path / "more", np.stack([texture(n) for n in range(2)]), "1.8"):
        path.rename(tmp_path / "in" / "two" / f"t2-{path.name}")
    assert main(["predict", str(run), str(tmp_path / "in"), "--out", str(tmp_path / "out")]) == 2
    assert "its series of 3 files is no volume: 3.dcm and 1.dcm are 6 mm apart" in capsys.readouterr().err
    names = {path.relative_to(tmp_path / "out").as_posix() for path in tmp_path.glob("out/**/*_mask.*")}
    assert names == {"two/1_mask.nii.gz", "two/t2-1_mask.nii.gz"}
    assert main(["predict", str(run), str(tmp_path / "in/bad/1.dcm"), "--out", str(tmp_path / "one")]) == 0
    assert (tmp_path / "one" / "1_mask.png").is_file()


def test_volumes_turned_to_the_patient_have_one_mask_each_in_its_own_geometry(run: Path, tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).normal(0, 300, (21, 17, 4)).astype(np.float32)
    image = nib.Nifti1Image(voxels, np.diag([-0.5, -0.7, -3, 1.0]))
    maps = []
    for codes in ("LPI", "SAR", "PRS"):
        start, end = (nib.orientations.axcodes2ornt(c) for c in ("LPI", codes))
        turned = image.as_reoriented(nib.orientations.ornt_transform(start, end))
        nib.save(turned, tmp_path / f"{codes}.nii.gz")
        out = tmp_path / "out"
        arguments = ["predict", str(run), str(tmp_path / f"{codes}.nii.gz"), "--out", str(out)]
        assert main([*arguments, "--orientation", "patient"]) == 0
        mask = nib.load(out / f"{codes}_mask.nii.gz")
        assert mask.affine.tobytes() == nib.load(tmp_path / f"{codes}.nii.gz").affine.tobytes()
        confidence = nib.load(out / f"{codes}_confidence.nii.gz")  # masks of so short a training are empty
        maps.append(np.asarray(nib.as_closest_canonical(confidence).dataobj))
    assert np.ptp(maps[0]) > 0
    assert (maps[1] == maps[0]).all()
    assert (maps[2] == maps[0]).all()
