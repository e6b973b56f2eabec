"""The M&Ms challenge as downloaded."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
import pytest

from semidg.data.index import build_index
from semidg.data.reading import record_mask
from semidg.data.splits import make_split
from semidg.data_config import SplitConfig
from semidg.errors import DataError
from semidg.types import Frame

from .support import save_nifti, texture

TABLE = "211230_M&Ms_Dataset_information_diagnosis_opendataset.csv"
HEADING = ",External code,VendorName,Vendor,Centre,ED,ES,Age,Pathology,Sex,Height,Weight"
CASES = {
    "Training/Labeled/A0S9V9": ("Siemens", "A", 0, 3),
    "Training/Labeled/B1K2L3": ("Philips", "B", 4, 1),
    "Training/Unlabeled/C3M4N5": ("GE", "C", 0, 2),
    "Testing/D6P7Q8": ("Canon", "D", 1, 1),
}
MM = (1.2, 1.2, 9.6)


def make_mms(root: Path) -> Path:
    """Four cases of five times and two slices; masks at end-diastole and end-systole only."""
    lines = [HEADING]
    for number, (folder, (name, vendor, ed, es)) in enumerate(CASES.items()):
        code = folder.rpartition("/")[2]
        voxels = np.stack(
            [np.stack([texture(100 * number + 10 * t + z, 8, 10) for z in range(2)], axis=2) for t in range(5)], axis=3
        )
        masks = np.zeros_like(voxels)
        masks[2:6, 2:6, :, ed] = 1
        masks[3:7, 3:7, :, es] = 3
        save_nifti(root / folder / f"{code}_sa.nii.gz", voxels, MM)
        save_nifti(root / folder / f"{code}_sa_gt.nii.gz", masks, MM)
        lines.append(f"{number},{code},{name},{vendor},1,{ed},{es},50,NOR,M,170,70")
    (root / TABLE).write_text("\n".join([*lines, "9,Z9Z9Z9,GE,C,4,0,1,,,,,"]) + "\n")
    return root


def test_vendors_are_domains_and_both_times_have_masks(tmp_path: Path) -> None:
    index = build_index(make_mms(tmp_path), classes=4)
    assert index.layout == "mms"
    assert Counter((r.domain, r.labelled) for r in index.records) == {
        ("A", True): 4,
        ("B", True): 4,
        ("C", False): 4,
        ("D", True): 2,
    }
    times = {d: {r.frame.time for r in index.records if r.domain == d and r.frame} for d in "ABCD"}
    assert times == {"A": {0, 3}, "B": {1, 4}, "C": {0, 2}, "D": {1}}
    assert len({r.group for r in index.records}) == 4
    b = {(r.frame.time, r.frame.number): r for r in index.records if r.domain == "B" and r.frame}
    assert b[1, 0].frame == Frame("z", 0, 1)
    assert (b[1, 0].spacing, b[1, 0].slice_mm) == (pytest.approx((1.2, 1.2)), pytest.approx(9.6))
    assert set(np.unique(record_mask(tmp_path, b[1, 0], 4))) == {0, 3}
    assert set(np.unique(record_mask(tmp_path, b[4, 1], 4))) == {0, 1}


def test_other_times_are_unlabelled_images_if_asked_for(tmp_path: Path) -> None:
    records = build_index(make_mms(tmp_path), classes=4, all_times=True).records
    assert Counter((r.domain, r.labelled) for r in records)["A", False] == 6
    assert len(records) == 4 * 2 * 5
    assert len({r.group for r in records}) == 4


def test_the_vendor_without_labels_is_a_pool_and_every_other_can_be_held_out(tmp_path: Path) -> None:
    records = build_index(make_mms(tmp_path), classes=4).records
    split = make_split(records, SplitConfig(target="D", validation=0), 0.5, 0)
    assert {r.domain for r in split.test} == {"D"}
    assert {r.domain for r in split.unlabelled} >= {"C"}


def test_lines_and_files_that_do_not_fit_are_listed(tmp_path: Path) -> None:
    root = make_mms(tmp_path)
    save_nifti(root / "Validation" / "E0" / "E0_sa.nii.gz", np.zeros((4, 4, 2, 3), np.uint8), MM)
    save_nifti(root / "Validation" / "F0" / "F0_sa_gt.nii.gz", np.zeros((4, 4, 2, 3), np.uint8), MM)
    text = (root / TABLE).read_text().replace(",B,1,4,1,", ",B,1,4,7,").replace(",A,1,0,3,", ",,1,0,3,")
    (root / TABLE).write_text(text + "10,C3M4N5,GE,C,4,0,x,,,,,\n11,D6P7Q8,GE,C,4,0,1.0,,,,,\n")
    with pytest.raises(DataError) as caught:
        build_index(root, classes=4)
    for line in (
        "line 2: no Vendor",
        "line 3: Training/Labeled/B1K2L3/B1K2L3_sa.nii.gz has no time 7; it has 0 to 4",
        "line 7: ES 'x': the number of a time",
        "line 8: 'D6P7Q8' already stands in line 5",
        f"Validation/E0/E0_sa.nii.gz: {TABLE} has no line for E0",
        "mask without image (1;",
    ):
        assert line in str(caught.value), str(caught.value)


def test_too_few_classes_two_tables_and_a_table_without_a_column_are_refused(tmp_path: Path) -> None:
    root = make_mms(tmp_path)
    with pytest.raises(DataError, match=r"set network\.classes to 4"):
        build_index(root)
    (root / "201014_M&Ms_Dataset_Information_-_opendataset.csv").write_text((root / TABLE).read_text())
    with pytest.raises(DataError, match="2 tables"):
        build_index(root, classes=4)
    (root / TABLE).unlink()
    assert len(build_index(root, classes=4).records) == 14
    table = next(root.glob("*.csv"))
    table.write_text(table.read_text().replace("Vendor,Centre", "Maker,Centre"))
    with pytest.raises(DataError, match="no column Vendor"):
        build_index(root, classes=4)


@pytest.mark.parametrize("orientation", ["stored", "patient"])
def test_the_stack_is_cut_across_wherever_the_patient_lies(
    tmp_path: Path, orientation: Literal["stored", "patient"]
) -> None:
    make_mms(tmp_path)
    code = "Testing/D6P7Q8/D6P7Q8"
    axes = np.array([[0, 0, 9.6, 0], [1.2, 0, 0, 0], [0, 1.2, 0, 0], [0, 0, 0, 1]])  # the stack lies left to right
    for name in (f"{code}_sa.nii.gz", f"{code}_sa_gt.nii.gz"):
        image = nib.load(tmp_path / name)
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), axes), tmp_path / name)
    records = [r for r in build_index(tmp_path, classes=4, orientation=orientation).records if r.domain == "D"]
    assert len(records) == 2
    assert {sorted((r.width, r.height)) == [8, 10] for r in records} == {True}
    assert [r.slice_mm for r in records] == [pytest.approx(9.6)] * 2
