"""Each command of docs/how-to/public-data-sets.md finds all images, masks, classes and patients of an imitation."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from semidg.cli import main
from semidg.data.index import build_index
from semidg.data.reading import record_mask

PAGE = Path(__file__).parents[2] / "docs/how-to/public-data-sets.md"
ALL = [shlex.split(line) for line in re.findall(r"^semidg index .*$", PAGE.read_text("utf-8"), re.MULTILINE)]
COMMANDS = {words[2]: words for words in ALL if "--masks" in words}


class Imitation(NamedTuple):
    """files: image -> its masks. levels: the values of its masks. classes: what they become, in the same order.
    patients: how many there are, where the command says it."""

    files: dict[str, tuple[str, ...]]
    levels: tuple[int, ...] = (0, 255)
    classes: tuple[int, ...] = (0, 1)
    patients: int | None = None


SETS = {
    "UDIAT": Imitation({f"original/{n:06}.png": (f"GT/{n:06}.png",) for n in (1, 2)}),
    "BUSBRA": Imitation(
        {f"Images/bus_{n:04}-{s}.png": (f"Masks/mask_{n:04}-{s}.png",) for n in (1, 2) for s in "lr"}, patients=2
    ),
    "BrEaST": Imitation(
        {"case001.png": ("case001_tumor.png",), "case002.png": ("case002_tumor_1.png", "case002_tumor_2.png")}
    ),
    "tn3k": Imitation({f"{part}-image/0000.jpg": (f"{part}-mask/0000.jpg",) for part in ("trainval", "test")}),
    "CVC-ClinicDB": Imitation({f"Original/{n}.tif": (f"Ground Truth/{n}.tif",) for n in (1, 10)}),
    "ISIC": Imitation(
        {
            f"ISIC2018_Task1-2_Training_Input/ISIC_{n:07}.jpg": (
                f"ISIC2018_Task1_Training_GroundTruth/ISIC_{n:07}_segmentation.png",
            )
            for n in (0, 1)
        }
    ),
    "MontgomerySet": Imitation(
        {
            f"CXR_png/MCUCXR_{n:04}_0.png": tuple(
                f"ManualMask/{side}Mask/MCUCXR_{n:04}_0.png" for side in ("left", "right")
            )
            for n in (1, 2)
        }
    ),
    "prostate": Imitation(
        {
            "RUNMC/Case00.nii.gz": ("RUNMC/Case00_segmentation.nii.gz",),
            "BMC/Case00.nii.gz": ("BMC/Case00_Segmentation.nii.gz",),
        },
        (0, 1, 2),
        (0, 1, 1),
    ),
    "REFUGE": Imitation(
        {
            f"Training400/{kind}/{letter}0001.jpg": (f"Annotation-Training400/Disc_Cup_Masks/{kind}/{letter}0001.bmp",)
            for kind, letter in (("Glaucoma", "g"), ("Non-Glaucoma", "n"))
        },
        (0, 128, 255),
        (2, 1, 0),
    ),
    "Fundus": Imitation(
        {f"Domain{n}/train/ROIs/image/x{n}.png": (f"Domain{n}/train/ROIs/mask/x{n}.png",) for n in (1, 2, 3, 4)},
        (0, 128, 255),
        (2, 1, 0),
    ),
    "ACDC": Imitation(
        {
            f"training/patient{n:03}/patient{n:03}_frame{t:02}.nii.gz": (
                f"training/patient{n:03}/patient{n:03}_frame{t:02}_gt.nii.gz",
            )
            for n in (1, 2)
            for t in (1, 12)
        },
        (0, 1, 2, 3),
        (0, 3, 2, 1),
        patients=2,
    ),
    "PROMISE12": Imitation(
        {
            f"TrainingData_Part{part}/Case{n:02}.mhd": (f"TrainingData_Part{part}/Case{n:02}_segmentation.mhd",)
            for part, n in ((1, 0), (1, 1), (2, 26))
        },
        (0, 1),
    ),
    "PSFHS": Imitation(
        {f"image_mha/{n:05}.mha": (f"label_mha/{n:05}.mha",) for n in (1, 2)}, (0, 1, 2), (0, 1, 2), None
    ),
    "CAMUS": Imitation(
        {
            f"database_nifti/patient0001/patient0001_{view}_{time}.nii.gz": (
                f"database_nifti/patient0001/patient0001_{view}_{time}_gt.nii.gz",
            )
            for view in ("2CH", "4CH")
            for time in ("ED", "ES")
        },
        (0, 1, 2, 3),
        (0, 1, 2, 3),
        patients=1,
    ),
}


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".mha":
        sitk.WriteImage(sitk.GetImageFromArray(np.stack([pixels] * 3) if "image" in path.parts[-2] else pixels), path)
    elif path.suffix == ".mhd":
        sitk.WriteImage(sitk.GetImageFromArray(np.stack([pixels] * 2)), path)
    elif path.name.endswith(".nii.gz"):
        nib.save(nib.Nifti1Image(np.stack([pixels] * 2, -1), np.diag([1.0, 1, 5, 1])), path)
    else:
        Image.fromarray(pixels).save(path)


def test_every_command_has_its_imitation() -> None:
    assert set(COMMANDS) == set(SETS)


def test_an_index_without_masks_in_its_folder_is_a_set_of_unlabelled_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    for image in SETS["BUSBRA"].files:
        write(tmp_path / "BUSBRA" / image, rng.integers(0, 255, (64, 64), dtype=np.uint8))
    for name in ("images/1", "masks/1"):
        write(tmp_path / "own" / f"{name}.png", np.kron(rng.integers(0, 2, (4, 4)), np.ones((16, 16))).astype(np.uint8))
    monkeypatch.chdir(tmp_path)
    (command,) = [words for words in ALL if "--masks" not in words]
    assert main(command[1:]) == 0
    found = build_index(tmp_path / "own", more_roots=[Path(command[-1])]).records
    assert [record.labelled for record in found] == [True] + [False] * 4
    assert len({record.group for record in found}) == 3


@pytest.mark.parametrize("name", SETS)
def test_the_command_finds_all_of_the_set(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, rng = SETS[name], np.random.default_rng(0)
    size = 64
    for image, masks in made.files.items():
        write(tmp_path / name / image, rng.integers(0, 255, (size, size), dtype=np.uint8))
        for number, mask in enumerate(masks):
            band = np.repeat(np.array(made.levels, np.uint8), size // len(made.levels))
            band = np.pad(band, (0, size - len(band)), mode="edge")
            write(
                tmp_path / name / mask, np.tile(band[:, None], (1, size)) if number == 0 else np.tile(band, (size, 1))
            )
    monkeypatch.chdir(tmp_path)
    command = COMMANDS[name][1:]
    assert main(command) == 0
    table = tmp_path / name / "table.csv"
    (tmp_path / command[-1]).rename(table)
    classes = int(command[command.index("--classes") + 1]) if "--classes" in command else 2
    records = build_index(table, classes=classes).records
    found = {record.image: record.masks for record in records}
    assert found == {image: tuple(sorted(masks)) for image, masks in made.files.items()}
    if made.patients is not None:
        assert len({record.group for record in records}) == made.patients
    becomes = dict(zip(made.levels, made.classes, strict=True))
    for record in records:
        mask = record_mask(tmp_path / name, record, classes)
        assert set(np.unique(mask)) == set(made.classes)
        if len(record.masks) == 1:
            assert (mask[0, 0], mask[-1, -1]) == (becomes[made.levels[0]], becomes[made.levels[-1]])
