"""The SCGM challenge as downloaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from semidg.data.index import build_index, read_index, write_index
from semidg.data.reading import record_mask
from semidg.errors import DataError

from .support import save_nifti, texture


def _voxels(seed: int) -> np.ndarray:
    return np.stack([texture(10 * seed + i, 8, 10) for i in range(3)], axis=2)


def make_scgm(root: Path) -> Path:
    """Two sites with a subject each in the training data, and one subject in the test data."""
    rng = np.random.default_rng(0)
    for site in (1, 2):
        folder = root / "training-data-gm-sc-challenge"
        name = f"site{site}-sc0{site}"
        save_nifti(folder / f"{name}-image.nii.gz", _voxels(site), (0.5, 0.5, 5))
        (folder / f"{name}-levels.txt").write_text("0,3\n")
        for rater in range(1, 5):
            raters = rng.integers(0, 3, (10, 8, 3)).astype(np.uint8)
            save_nifti(folder / f"{name}-mask-r{rater}.nii.gz", raters, (0.5, 0.5, 5))
    save_nifti(root / "test-data-gm-sc-challenge" / "site1-sc11-image.nii.gz", _voxels(7), (0.5, 0.5, 5))
    return root


def test_sites_are_domains_and_most_of_the_raters_are_the_mask(tmp_path: Path) -> None:
    index = build_index(make_scgm(tmp_path / "d"), classes=3)
    assert index.layout == "scgm"
    assert [(r.id, r.domain, len(r.masks), r.vote) for r in index.records[::3]] == [
        ("site1-sc11/z0", "site1", 0, False),
        ("site1-sc01/z0", "site1", 4, True),
        ("site2-sc02/z0", "site2", 4, True),
    ]
    assert len({r.group for r in index.records}) == 3
    write_index(index, tmp_path / "index.csv")
    assert read_index(tmp_path / "index.csv", index.root) == index
    voted = index.records[3]
    raters = [record_mask(index.root, replace(voted, masks=(mask,), vote=False), 3) for mask in voted.masks]
    votes = np.stack([sum((r == k).astype(int) for r in raters) for k in range(3)])
    won = np.sort(votes, axis=0)[-1] > np.sort(votes, axis=0)[-2]  # no tie
    assert (record_mask(index.root, voted, 3)[won] == votes.argmax(axis=0)[won]).all()


def test_the_folder_of_the_files_is_a_root_too(tmp_path: Path) -> None:
    root = make_scgm(tmp_path)
    assert len(build_index(root / "training-data-gm-sc-challenge", classes=3).records) == 6


def test_a_lost_mask_a_doubled_subject_and_too_few_classes_are_refused(tmp_path: Path) -> None:
    root = make_scgm(tmp_path)
    with pytest.raises(DataError, match=r"3 classes \(background, grey matter, white matter\)"):
        build_index(root)
    save_nifti(root / "site2-sc02-image.nii.gz", _voxels(4))
    save_nifti(root / "site4-sc02-mask-r1.nii.gz", _voxels(4) % 3)
    with pytest.raises(DataError) as caught:
        build_index(root, classes=3)
    assert "site2-sc02-image.nii.gz and training-data" in str(caught.value)
    assert "mask without image (1;" in str(caught.value)
