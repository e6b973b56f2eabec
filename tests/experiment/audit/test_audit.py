"""The audit of a broken data set: it finishes, finds every fault, and agrees with the index on what is usable."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from audit_support import FAULTS, audit, make_broken, save, square, texture
from semidg.data.index import build_index
from semidg.data.paths import PROBLEMS
from semidg.data.splits import make_split, write_split
from semidg.data_config import SplitConfig
from semidg.errors import DataError, SplitError
from semidg.experiment.audit import KINDS, Audit, write_issues
from semidg.experiment.audit.issues import COLUMNS, SEVERITIES, Issue, counts, ranked
from semidg.experiment.audit.quality import HIGHEST_SCORE, WORST_PART, with_quality, worst, write_quality
from semidg.experiment.label_quality import Quality


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_broken(tmp_path_factory.mktemp("broken") / "données")


@pytest.fixture(scope="module")
def found(broken: Path) -> Audit:
    return audit(broken)


def test_every_fault_is_found_and_no_other(found: Audit) -> None:
    listed: dict[str, set[tuple[str, str]]] = {}
    for issue in found.issues:
        listed.setdefault(issue.kind, set()).add((issue.id, issue.other))
    assert listed == FAULTS


def test_what_is_usable_is_what_the_index_keeps(found: Audit, broken: Path) -> None:
    with pytest.raises(DataError):
        build_index(broken)
    index = build_index(broken, skip_bad=True)
    assert found.index.records == index.records
    assert {*found.cases} == {record.id for record in index.records}
    assert found.images == len(index.records) + 5


def test_files_and_boxes_are_named(found: Audit) -> None:
    by_kind = {issue.kind: issue for issue in found.issues}
    assert by_kind["mask without image"].file == "a/masks/orphan.png"
    assert by_kind["path that is not accepted"].file == "a/images/link.png"
    assert by_kind["size of image and mask differ"].file == "a/masks/small.png"
    assert by_kind["specks"].box == (50, 40, 1, 1)
    assert by_kind["holes"].box == (15, 15, 3, 3)
    assert by_kind["calliper at the lesion"].box == (23, 13, 15, 15)
    unusable = {issue.file: issue.explanation for issue in found.issues if issue.kind == "file that cannot be used"}
    assert {*unusable} == {"a/images/damaged.png", "a/images/zero.png", "b/masks/badmask.png"}
    assert "0 bytes" in unusable["a/images/zero.png"]
    # the list is shown to others: no path of this machine
    assert not any(str(found.index.root) in text for issue in found.issues for text in (issue.file, issue.explanation))


def test_the_list_is_in_order_and_is_read_back(found: Audit, tmp_path: Path) -> None:
    order = [list(KINDS).index(issue.kind) for issue in found.issues]
    assert order == sorted(order)
    severities = [SEVERITIES.index(issue.severity) for issue in found.issues]
    assert severities == sorted(severities)
    write_issues(found.issues, tmp_path / "issues.csv")
    with (tmp_path / "issues.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [(r["id"], r["file"], r["kind"], r["other"]) for r in rows] == [
        (i.id, i.file, i.kind, i.other) for i in found.issues
    ]
    assert {row["exclude"] for row in rows} == {""}
    assert counts(found.issues) == {kind: len(FAULTS[kind]) for kind in KINDS if kind in FAULTS}


def test_the_worst_of_a_kind_comes_first() -> None:
    dice = [Issue(name, "", "twins with different masks", "", value) for name, value in (("a", 0.6), ("b", 0.1))]
    specks = [Issue(name, "", "specks", "", value) for name, value in (("c", 1), ("d", 9))]
    assert [issue.id for issue in ranked([*specks, *dice])] == ["b", "a", "d", "c"]


def test_order_of_threads_does_not_matter(found: Audit, broken: Path) -> None:
    again = audit(broken)
    assert again.issues == found.issues
    assert [case.picture for case in again.cases.values()] == [case.picture for case in found.cases.values()]


def test_twins_across_a_split(tmp_path: Path) -> None:
    for number in range(8):
        save(tmp_path / "d", f"a/{number}", texture(number), square())
    save(tmp_path / "d", "a/copy", texture(0), square())
    index = build_index(tmp_path / "d")
    lists = tmp_path / "lists"
    write_split(make_split(index.records, SplitConfig(), 0.5, 0), index.root, lists)
    assert counts(audit(tmp_path / "d", split=lists).issues) == {"near-duplicate": 1}
    lines = {part: (lists / f"{part}.txt").read_text() for part in ("labelled", "unlabelled", "validation", "test")}
    moved = next(line for text in lines.values() for line in text.splitlines(True) if "copy" in line)
    original = next(part for part, text in lines.items() if "a/images/0.png" in text)
    for part, text in lines.items():
        (lists / f"{part}.txt").write_text(text.replace(moved, ""))
    target = "test" if original != "test" else "labelled"
    with (lists / f"{target}.txt").open("a") as file:
        file.write(moved)
    (issue,) = audit(tmp_path / "d", split=lists).issues
    assert (issue.kind, issue.id, issue.other) == ("twins across the split", "a/0", "a/copy")
    assert f"parts {original} and {target}" in issue.explanation
    with pytest.raises(SplitError, match="no split lists"):
        audit(tmp_path / "d", split=tmp_path / "d")


def test_empty_masks_are_judged_by_their_class(tmp_path: Path) -> None:
    marked = {"benign": (False, True, True), "malignant": (True, True, True), "normal": (False, False, True)}
    for seed, (name, lesions) in enumerate(marked.items()):
        (tmp_path / "d" / name).mkdir(parents=True)
        for k, lesion in enumerate(lesions):
            stem = tmp_path / "d" / name / f"{name} ({k})"
            Image.fromarray(texture(10 * seed + k)).save(f"{stem}.png")
            Image.fromarray(square() if lesion else np.zeros_like(square())).save(f"{stem}_mask.png")
    issues = [i for i in audit(tmp_path / "d", similarity=1).issues if "empty" in i.kind]
    assert [(i.kind, i.id) for i in issues] == [
        ("empty mask", "benign/benign (0)"),
        ("mask that is not empty", "normal/normal (2)"),
    ]
    assert "2 of the 3 images of class benign" in issues[0].explanation


def write_volume(path: Path, voxels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([1, 1, 5, 1])), path)  # type: ignore[no-untyped-call]


def test_volumes_are_looked_at_plane_by_plane(tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("two", 10), ("copy", 0)):
        planes = np.stack([texture(seed + k) for k in range(4)], axis=2)
        masks = np.stack([square(side=10 + k) // 255 * (k > 0) for k in range(4)], axis=2)
        write_volume(tmp_path / "a" / "images" / f"{name}.nii.gz", planes)
        write_volume(tmp_path / "a" / "masks" / f"{name}.nii.gz", masks)
    found = audit(tmp_path)
    assert found.index.records == build_index(tmp_path).records
    assert counts(found.issues) == {"near-duplicate": 4}  # an empty plane is no finding
    assert {frozenset(name.split("/")[1][:3] for name in (i.id, i.other)) for i in found.issues} == {
        frozenset({"one", "cop"})
    }
    damaged = tmp_path / "a" / "images" / "two.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:-300])
    errors = [issue for issue in audit(tmp_path).issues if issue.severity == "error"]
    assert [(issue.kind, issue.file) for issue in errors] == [("file that cannot be used", "a/images/two.nii.gz")]


def test_every_problem_of_a_listing_is_a_kind() -> None:
    assert {*PROBLEMS} <= {*KINDS}


def test_styles_patients_and_roots_are_those_of_the_index(tmp_path: Path) -> None:
    for root in ("x", "y"):
        for k in range(8):
            bright = texture(100 * (root == "y") + k) + (100 if k % 2 else 0)
            save(tmp_path / root, f"a/p{k // 3}-{k}", bright.astype(np.uint8), square())
    found = audit(tmp_path / "x", more_roots=[tmp_path / "y"], groups=r"(p\d)-", domains="styles:2")
    index = build_index(tmp_path / "x", more_roots=[tmp_path / "y"], groups=r"(p\d)-", domains="styles:2")
    assert found.index == index
    assert [domain.name for domain in found.domains.table] == ["style-1", "style-2"]


def test_what_is_no_data_set_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no image found"):
        audit(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        audit(tmp_path / "nowhere")


def test_a_mask_of_more_classes_and_one_that_cannot_be_united(tmp_path: Path) -> None:
    save(tmp_path, "a/0", texture(0), square() // 255, square(12, 12) // 255 * 2)
    save(tmp_path, "a/1", texture(1), square() // 255 * 7)
    found = counts(audit(tmp_path, classes=3).issues)
    assert found == {"mask with other values": 1, "mask files that overlap": 1, "several mask files": 1}


def test_pixels_that_are_not_known_are_not_judged(tmp_path: Path) -> None:
    mask = square()
    mask[0, :4] = 77  # a speck at the border, were it of the lesion
    save(tmp_path, "a/1", texture(1), mask)
    assert [issue.kind for issue in audit(tmp_path, ignore_label=77).issues] == []
    assert [issue.kind for issue in audit(tmp_path).issues] == ["mask with other values"]
    save(tmp_path, "a/1", texture(1), np.full_like(mask, 77))
    assert [issue.kind for issue in audit(tmp_path, ignore_label=77).issues] == ["mask without a known pixel"]


def scores(found: Audit, values: list[float]) -> list[Quality]:
    masked = [r.id for r in found.index.records if r.labelled]
    return [
        Quality(name, value, np.ones((8, 8), np.uint8), "fold 1") for name, value in zip(masked, values, strict=False)
    ]


def test_the_worst_scores_become_issues(found: Audit, tmp_path: Path) -> None:
    some = scores(found, [0.9, 0.3, 0.49, 0.1])
    assert [q.score for q in worst(some)] == [0.1]
    many = [replace(some[0], score=k / 100) for k in range(100)]
    assert [q.score for q in worst(many)] == [k / 100 for k in range(round(100 * WORST_PART))]
    assert worst([replace(some[0], score=HIGHEST_SCORE)]) == []
    judged = with_quality(found, some)
    (issue,) = set(judged.issues) - set(found.issues)
    assert (issue.kind, issue.id, issue.value) == ("mask unlike its prediction", some[3].id, 0.1)
    assert {*judged.predicted} == {some[3].id}
    write_quality(found, some, tmp_path / "quality.csv")
    with (tmp_path / "quality.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["score"] for row in rows] == ["0.100000", "0.300000", "0.490000", "0.900000"]
    assert [row["issue"] for row in rows] == ["yes", "", "", ""]


#: Two images that look the same, with two classes: METHOD and our own look at them.
CONTRADICTIONS = {
    ("benign (433)", "malignant (145)"),
    ("benign (399)", "malignant (93)"),
    ("benign (131)", "malignant (51)"),
    ("benign (42)", "malignant (51)"),
    ("benign (269)", "normal (1)"),
    ("benign (437)", "normal (34)"),
}


@pytest.mark.busi
def test_the_contradictions_of_busi_are_listed(busi_root: Path) -> None:
    found = audit(busi_root)
    assert found.images == len(found.index.records) == 780
    of_class = {
        (i.id.partition("/")[2], i.other.partition("/")[2])
        for i in found.issues
        if i.kind == "twins of different classes"
    }
    assert of_class >= CONTRADICTIONS
    assert len(of_class) == 11
    number = counts(found.issues)
    assert number["several mask files"] == 17
    assert number["calliper at the lesion"] > 100
    assert not any(issue.severity == "error" for issue in found.issues)
