"""DICOM series: order, spacing and geometry against the header, one grey scale, and what is no volume."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from semidg.data import dicom, dicom_series
from semidg.data.dicom_series import Series, arrange, in_folder
from semidg.data.index import build_index, read_index, write_index
from semidg.data.reading import record_image, record_mask
from semidg.data.splits import make_split
from semidg.data_config import SplitConfig
from semidg.errors import DataError
from semidg.experiment.cases import cases_of
from semidg.types import Frame

from .support import save, save_dicom, save_series, square, texture

STACK = np.stack([texture(n).astype(np.int16) * 4 + 100 * n for n in range(5)])


def arranged(root: Path, folder: str = ".") -> Series:
    (slices,) = in_folder(root, folder).values()
    return arrange(slices, root)


def test_slices_are_ordered_by_position_not_by_name_or_number(tmp_path: Path) -> None:
    save_series(tmp_path, STACK, each={"InstanceNumber": [3, 1, 2, 5, 4]})
    found = arranged(tmp_path)
    assert found.files == ("5.dcm", "4.dcm", "3.dcm", "2.dcm", "1.dcm")
    assert found[1:5] == (40, 30, (0.5, 0.25), 3)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_the_affine_takes_every_pixel_to_where_its_header_says(
    seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rng = np.random.default_rng(seed)
    axes, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    columns, rows = axes[:, 0], axes[:, 1]
    normal, start, step = np.cross(columns, rows), rng.normal(0, 50, 3), rng.uniform(0.5, 5)
    positions = [start + step * k * normal for k in range(4)]
    order = rng.permutation(4)
    folder = tmp_path_factory.mktemp("series")
    save_series(
        folder,
        STACK[:4, :6, :5],
        each={"ImagePositionPatient": [np.round(positions[k], 6).tolist() for k in order]},
        ImageOrientationPatient=np.round([*columns, *rows], 6).tolist(),
    )
    found = arranged(folder)
    assert found.affine is not None
    assert found.slice_mm == pytest.approx(step, rel=1e-3)
    assert found.files == tuple(f"{4 - order.tolist().index(k)}.dcm" for k in range(4))
    for i, j, k in ((0, 0, 0), (4, 0, 1), (0, 5, 2), (3, 2, 3)):
        x, y, z = positions[k] + i * 0.25 * columns + j * 0.5 * rows  # PS3.3 C.7.6.2.1.1
        assert np.allclose((found.affine @ [i, j, k, 1])[:3], (-x, -y, z), atol=1e-3)


def test_without_direction_or_position_the_number_decides(tmp_path: Path) -> None:
    save_series(tmp_path / "a", STACK, each={"InstanceNumber": [5, 4, 3, 2, 1]}, ImageOrientationPatient=None)
    assert arranged(tmp_path, "a")[0] == tuple(f"a/{n}.dcm" for n in range(1, 6))
    assert arranged(tmp_path, "a").slice_mm == 3
    assert arranged(tmp_path, "a").affine is None
    save_series(tmp_path / "b", STACK, ImagePositionPatient=None, SpacingBetweenSlices=2.5)
    assert arranged(tmp_path, "b")[0] == tuple(f"b/{n}.dcm" for n in range(5, 0, -1))
    assert arranged(tmp_path, "b").slice_mm == 2.5
    save_series(tmp_path / "c", STACK, ImagePositionPatient=None, Modality="US")
    assert in_folder(tmp_path, "c") == {}


LEVEL, UPRIGHT = [1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, -1]
NOWHERE = [None] * 5


@pytest.mark.parametrize(
    ("each", "text"),
    [
        ({"ImagePositionPatient": [[0, 0, z] for z in (0, 3, 9, 12, 15)]}, "p/3.dcm are 6 mm apart, others 3 mm"),
        ({"ImagePositionPatient": [[0, 0, z] for z in (0, 3, 3, 6, 9)]}, "p/3.dcm and p/4.dcm lie at one place"),
        ({"ImagePositionPatient": [[0, 0, 0]] * 5}, "lie at one place"),
        ({"ImagePositionPatient": [None, *[[0, 0, z] for z in range(4)]]}, "some of the files give no position"),
        ({"ImageOrientationPatient": [*[LEVEL] * 4, UPRIGHT]}, "it and p/2.dcm lie in different directions"),
        ({"ImageOrientationPatient": [*[LEVEL] * 4, None]}, "lie in different directions"),
        ({"ImagePositionPatient": NOWHERE, "InstanceNumber": [1, 2, 4, 5, 6]}, "missing between p/4.dcm and p/3.dcm"),
        ({"ImagePositionPatient": NOWHERE, "InstanceNumber": [1] * 5}, "InstanceNumber is missing or stands twice"),
    ],
)  # fmt: skip
def test_what_is_no_volume_is_told_once_with_its_files(tmp_path: Path, each: dict[str, Any], text: str) -> None:
    save_series(tmp_path / "a" / "images" / "p", STACK, each=each)
    with pytest.raises(DataError) as caught:
        build_index(tmp_path)
    lines = str(caught.value).replace("a/images/", "").splitlines()
    assert lines[1].startswith("series that is no volume (1; ")
    assert "p/1.dcm: its series of 5 files is no volume: " in lines[2]
    assert text in lines[2]
    assert len(lines) == 3


def test_another_size_is_told(tmp_path: Path) -> None:
    save_series(tmp_path / "a" / "images" / "p", STACK)
    small = save_series(tmp_path / "b", STACK[:1, :20])
    small[0].rename(tmp_path / "a" / "images" / "p" / "3.dcm")
    with pytest.raises(
        DataError, match=r"p/1\.dcm: its series of 5 files is no volume: it is 40 x 30, .*3\.dcm is 40 x 20"
    ):
        build_index(tmp_path)


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("windows", [None, [[100, 50], [200, 60], [300, 70], [400, 80], [500, 90]]])
def test_all_slices_have_the_grey_scale_of_the_volume(tmp_path: Path, kind: str, windows: Any) -> None:
    slopes = [1.0, 2.0, 1.0, 1.0, 1.0]
    each: dict[str, list[Any]] = {"RescaleSlope": slopes}
    if windows is not None:
        each |= {"WindowCenter": [w[0] for w in windows], "WindowWidth": [w[1] for w in windows]}
    paths = save_series(tmp_path, STACK, each=each, RescaleIntercept=-50, PhotometricInterpretation=kind)
    values = STACK * np.array(slopes)[:, None, None] - 50
    low, high = np.percentile(values, (0.5, 99.5))
    expected = np.clip((values - low) / (high - low), 0, 1) * 255
    found = dicom_series.read_files(paths).astype(float)
    assert np.abs(found - (255 - expected if kind == "MONOCHROME1" else expected)).max() <= 1


def test_one_window_of_all_slices_and_eight_bits_are_those_of_each_file(tmp_path: Path) -> None:
    for name, stack, elements in (
        ("window", STACK, {"WindowCenter": 300, "WindowWidth": 500}),
        ("eight", STACK.astype(np.uint8), {}),
        ("colour", np.repeat(STACK.astype(np.uint8)[..., None], 3, -1), {"kind": "RGB"}),
    ):
        paths = save_series(tmp_path / name, stack, **elements)
        assert (dicom_series.read_files(paths) == np.concatenate([dicom.read_pixels(path) for path in paths])).all()


def make_data(root: Path, masks: int = 5) -> Path:
    """Three patients with a series of five slices each; masks are PNG files named like the slices."""
    for patient in range(3):
        stack = np.stack([texture(10 * patient + n).astype(np.int16) * 4 for n in range(5)])
        save_series(root / "a" / "images" / f"p{patient}", stack, f"1.2.{patient}")
        for n in range(masks):
            save(root / "a" / "masks" / f"p{patient}" / f"{5 - n}.png", square(at=3 + n))
    return root


def test_a_series_is_one_volume_of_one_group_in_index_split_and_cases(tmp_path: Path) -> None:
    index = build_index(make_data(tmp_path / "d"))
    assert len(index.records) == 15
    first = next(r for r in index.records if r.image == "a/images/p1/5.dcm")
    assert (first.id, first.frame, first.series, first.slice_mm, first.spacing) == (
        "a/p1/5", Frame("z", 0), "a/images/p1/5.dcm", 3, (0.5, 0.25),
    )  # fmt: skip
    assert len({r.group for r in index.records}) == 3
    cases = cases_of(index.records)
    assert [case.id for case in cases] == ["a/p0", "a/p1", "a/p2"]
    assert cases[1].spacing == (3, 0.5, 0.25)
    truth = cases[1].stack([record_mask(index.root, plane) for plane in cases[1].planes], 255)
    assert (truth == np.stack([square(at=3 + n) // 255 for n in range(5)])).all()
    slices = np.stack([record_image(index.root, plane, 1)[..., 0] for plane in cases[1].planes])
    assert (slices == dicom_series.read_series(index.root, "a/images/p1/5.dcm")).all()
    assert all((a != b).any() for a, b in itertools.pairwise(slices))
    split = make_split(index.records, SplitConfig(validation=0, test=0.3), labelled=1.0, seed=0)
    assert {len([r for r in split.test if r.series == name]) for name in {r.series for r in index.records}} == {0, 5}
    write_index(index, tmp_path / "index.csv")
    assert read_index(tmp_path / "index.csv", tmp_path / "d").records == index.records
    again = build_index(shutil_copy(tmp_path / "index.csv", tmp_path / "d" / "index.csv"))
    assert [(r.image, r.frame, r.series) for r in again.records] == [
        (r.image, r.frame, r.series) for r in index.records
    ]


def shutil_copy(source: Path, target: Path) -> Path:
    target.write_bytes(source.read_bytes())
    return target


def test_a_table_may_list_some_of_the_slices(tmp_path: Path) -> None:
    save_series(tmp_path / "p", STACK)
    save(tmp_path / "m.png", square())
    (tmp_path / "t.csv").write_text("image,mask\np/1.dcm,m.png\np/3.dcm,\n")
    found = {r.image: r for r in build_index(tmp_path / "t.csv").records}
    assert found["p/1.dcm"].frame == Frame("z", 4)
    assert found["p/3.dcm"].frame == Frame("z", 2)
    assert (record_image(tmp_path, found["p/3.dcm"], 1)[..., 0] == dicom_series.read_files(
        [tmp_path / "p" / f"{5 - n}.dcm" for n in range(5)])[2]).all()  # fmt: skip


def test_a_series_that_changed_since_is_told(tmp_path: Path) -> None:
    index = build_index(make_data(tmp_path))
    record = next(r for r in index.records if r.image == "a/images/p1/1.dcm")
    (tmp_path / "a/images/p1/5.dcm").unlink()
    with pytest.raises(DataError, match=r"5\.dcm"):
        record_image(tmp_path, record, 1)


def test_pictures_of_a_series_without_positions_are_one_group_but_no_volume(tmp_path: Path) -> None:
    for patient in range(2):
        stack = np.stack([texture(10 * patient + n) for n in range(3)])
        save_series(tmp_path / "a" / "images" / str(patient), stack, f"1.{patient}", ImagePositionPatient=None,
                    Modality="US", PatientID=f"P{patient}")  # fmt: skip
    save_dicom(tmp_path / "a" / "images" / "later.dcm", texture(50), PatientID="P1")
    index = build_index(tmp_path)
    groups = {r.id: r.group for r in index.records}
    assert all(r.volume is None and r.frame is None for r in index.records)
    assert len({groups[f"a/0/{n}"] for n in (1, 2, 3)}) == 1
    assert {groups["a/later"]} == {groups[f"a/1/{n}"] for n in (1, 2, 3)}
    assert groups["a/0/1"] != groups["a/1/1"]
    alone = build_index(tmp_path, groups=r"(\d)\.dcm|$")
    assert {r.id: r.group for r in alone.records}["a/later"] == "a/later"


def test_a_patient_that_all_images_have_is_a_placeholder_and_a_study_is_not(tmp_path: Path) -> None:
    for n in range(4):
        save_dicom(tmp_path / f"a/images/{n}.dcm", texture(n), PatientID="ANON", StudyInstanceUID=f"1.2.{n // 2}")
    groups = [r.group for r in build_index(tmp_path).records]
    assert groups == ["a/0", "a/0", "a/2", "a/2"]


def test_films_of_a_patient_are_one_group_on_one_side_of_a_split(tmp_path: Path) -> None:
    for patient, film in itertools.product(range(6), range(2)):
        stack = np.stack([texture(100 * patient + 10 * film + k) for k in range(3)])
        path = tmp_path / "a" / "images" / f"p{patient}-{film}.dcm"
        save_dicom(path, stack, PatientID=f"P{patient}", Modality="US")
        pages = [Image.fromarray(square())] * 3
        (tmp_path / "a" / "masks").mkdir(exist_ok=True)
        pages[0].save(tmp_path / "a" / "masks" / f"p{patient}-{film}.tif", save_all=True, append_images=pages[1:])
    index = build_index(tmp_path)
    assert len({record.group for record in index.records}) == 6
    assert len({(record.group, record.id[2:4]) for record in index.records}) == 6
    split = make_split(index.records, SplitConfig(validation=0.2, test=0.3), 0.5, 0)
    sides = [{r.id[2:4] for r in part} for part in ((*split.labelled, *split.unlabelled), split.validation, split.test)]
    assert not any(a & b for a, b in itertools.combinations(sides, 2))


def test_a_film_in_a_series_of_slices_is_a_film(tmp_path: Path) -> None:
    save_series(tmp_path / "a" / "images" / "p", STACK)
    film = np.stack([texture(60), texture(61)]).astype(np.uint16)
    save_dicom(tmp_path / "a" / "images" / "p" / "film.dcm", film, SeriesInstanceUID="1.2.3.4", Modality="MR")
    index = build_index(tmp_path)
    assert sorted(str(r.frame) for r in index.records if "film" in r.image) == ["f0", "f1"]
    assert sum(bool(r.series) for r in index.records) == 5


def test_a_file_that_is_hidden_from_its_series_is_named(tmp_path: Path) -> None:
    paths = save_series(tmp_path / "p", STACK[:5])
    paths[0].rename(tmp_path / "p" / ".5.dcm")
    (tmp_path / "t.csv").write_text("image,mask\np/.5.dcm,m.png\np/1.dcm,\n")
    save(tmp_path / "m.png", square())
    with pytest.raises(DataError, match=r"p/\.5\.dcm: is not among the files of its series"):
        build_index(tmp_path / "t.csv")


@pytest.mark.parametrize("slopes", [[1.0] * 5, [1.0, 2.0, 1.0, 1.0, 1.0]])
def test_eight_bit_slices_with_windows_or_rescalings_of_their_own_go_by_the_whole_series(
    tmp_path: Path, slopes: list[float]
) -> None:
    stack = STACK.astype(np.uint8)
    each: dict[str, list[Any]] = {"RescaleSlope": slopes}
    if len(set(slopes)) == 1:
        each |= {"WindowCenter": [60, 80, 100, 120, 140], "WindowWidth": [50, 60, 70, 80, 90]}
    paths = save_series(tmp_path, stack, each=each, RescaleIntercept=0)
    values = stack * np.array(slopes)[:, None, None]
    low, high = np.percentile(values, (0.5, 99.5))
    expected = np.clip((values - low) / (high - low), 0, 1) * 255
    assert np.abs(dicom_series.read_files(paths).astype(float) - expected).max() <= 1
