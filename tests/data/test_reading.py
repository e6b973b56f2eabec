from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from semidg.data import pages, reading, voxels
from semidg.data.counting import percentiles
from semidg.data.dataset import open_cache
from semidg.data.images import read_image, resize_image, resize_mask
from semidg.data.index import build_index, read_index, write_index
from semidg.data.masks import Coding, levels, majority
from semidg.data.reading import by_file, plane_image, plane_mask, record_image, record_mask
from semidg.data.store import Store
from semidg.errors import DataError
from semidg.types import Frame, Record

from .support import make_folders, save, save_dicom, save_nifti, square, texture


def make_volumes(root: Path, count: int = 2, slices: int = 30) -> Path:
    """The folders layout with ``count`` volumes (40, 30, slices) with masks and one without."""
    for number in range(count + 1):
        voxels = np.stack([texture(1000 * number + n) for n in range(slices)], -1).transpose(1, 0, 2)
        mask = np.stack([square(at=n % 15) for n in range(slices)], -1).transpose(1, 0, 2) // 255
        save_nifti(root / "a" / "images" / f"{number}.nii.gz", voxels.astype(np.int16), (0.5, 0.4, 3))
        if number < count:
            save_nifti(root / "a" / "masks" / f"{number}.nii.gz", mask, (0.5, 0.4, 3))
    return root


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each volume file has been decoded; nothing is remembered from another test."""
    counts: Counter[str] = Counter()
    real = voxels._read

    def read(path: Path, colours: bool = True) -> Any:
        counts["/".join(path.parts[-2:])] += 1
        return real(path, colours)

    monkeypatch.setattr(voxels, "_read", read)
    monkeypatch.setattr(reading, "_store", Store(1))  # keeps no more than it must
    return counts


def test_a_volume_is_decoded_once_by_the_index_and_once_by_the_cache(tmp_path: Path, decoded: Counter[str]) -> None:
    root = make_volumes(tmp_path / "d")
    names = {f"images/{n}.nii.gz" for n in range(3)} | {f"masks/{n}.nii.gz" for n in range(2)}
    index = build_index(root)
    assert decoded == Counter(names)
    decoded.clear()
    cache = open_cache(root, index.records, 16, 1, folder=tmp_path / "cache")
    assert decoded <= Counter(names)  # what is still at hand from before is not decoded at all
    for record in (index.records[3], index.records[-1]):
        row = cache.row(record.id)
        assert (cache.images[row] == resize_image(record_image(root, record, 1), 16)).all()
        if record.labelled:
            assert (cache.masks[row] == resize_mask(record_mask(root, record), 16)).all()
    decoded.clear()
    for record in index.records[:30]:  # what scoring does
        record_mask(root, record)
    assert decoded == Counter({"masks/0.nii.gz": 1})


def test_volumes_in_the_folders_layout(tmp_path: Path) -> None:
    index = build_index(make_volumes(tmp_path / "d", slices=11))
    assert len(index.records) == 33
    first = index.records[0]
    assert first == Record(
        *("a/0/z00", "a/images/0.nii.gz", ("a/masks/0.nii.gz",), "a", "", "a/0/z00", 40, 30),
        (0.4, 0.5),
        Frame("z", 0),
        3,
    )
    assert len({r.group for r in index.records}) == len({r.volume for r in index.records}) == 3
    assert sum(r.labelled for r in index.records) == 22
    write_index(index, tmp_path / "index.csv")
    assert read_index(tmp_path / "index.csv", tmp_path / "d").records == index.records
    across = build_index(tmp_path / "d", slice_axis="x")
    assert len(across.records) == 3 * 40
    assert (across.records[0].width, across.records[0].height, across.records[0].spacing) == (30, 11, (3, 0.4))


def test_empty_end_slices_do_not_chain_volumes_but_copies_are_one_group(tmp_path: Path) -> None:
    for number in range(3):
        voxels = np.stack([texture(number) * (0 < n < 3) for n in range(4)], -1)
        save_nifti(tmp_path / "a" / "images" / f"{number}.nii", voxels, (1, 1, 3))
    save_nifti(tmp_path / "b" / "images" / "copy.nii.gz", np.stack([texture(2) * (0 < n < 3) for n in range(4)], -1))
    groups = {r.image: r.group for r in build_index(tmp_path).records}
    assert len(set(groups.values())) == 3
    assert groups["a/images/2.nii"] == groups["b/images/copy.nii.gz"]


def test_films_and_pages_with_masks_of_other_formats(tmp_path: Path) -> None:
    film = np.stack([texture(n) for n in range(3)])
    masks = np.stack([square(at=n) for n in range(3)])
    save_dicom(tmp_path / "a" / "images" / "1.dcm", film, PixelSpacing=[0.2, 0.1])
    _save_pages(tmp_path / "a" / "masks" / "1.tif", masks)
    _save_pages(tmp_path / "a" / "images" / "2.tiff", film[::-1])
    save_dicom(tmp_path / "a" / "masks" / "2_mask.dcm", masks[::-1])
    save_dicom(tmp_path / "a" / "images" / "3.dcm", texture(9))
    save(tmp_path / "a" / "masks" / "3.png", square())
    index = build_index(tmp_path)
    assert [r.id for r in index.records] == [f"a/{n}/f{k}" for n in (1, 2) for k in range(3)] + ["a/3"]
    assert [r.spacing for r in index.records[:4]] == [(0.2, 0.1)] * 3 + [None]
    for record, image, mask in zip(index.records[:6], [*film, *film[::-1]], [*masks, *masks[::-1]], strict=True):
        assert (record_image(tmp_path, record, 1)[..., 0] == image).all()
        assert (record_mask(tmp_path, record) == mask // 255).all()
    assert len({r.group for r in index.records}) == 3


def test_all_that_does_not_fit_is_listed_once(tmp_path: Path) -> None:
    root = make_volumes(tmp_path / "d", count=4, slices=5)
    masks = root / "a" / "masks"
    save_nifti(masks / "0.nii.gz", np.zeros((40, 30, 4), np.uint8))
    image = save_nifti(masks / "1.nii.gz", np.zeros((40, 30, 5), np.uint8))
    affine = np.diag([-1.0, 1, 1, 1])
    nib.save(nib.Nifti1Image(np.zeros((40, 30, 5), np.uint8), affine), image)
    save_nifti(masks / "2.nii.gz", np.arange(6000, dtype=np.int16).reshape(40, 30, 5))
    (masks / "3.nii.gz").write_bytes((masks / "3.nii.gz").read_bytes()[:-30])
    (root / "a" / "images" / "4.nii.gz").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        build_index(root)
    text = str(caught.value)
    assert "5 problem(s)" in text
    assert "a/images/0.nii.gz is 40 x 30 in 5 planes, a/masks/0.nii.gz is 40 x 30 in 4 planes" in text
    assert "a/images/1.nii.gz is stored RAS, a/masks/1.nii.gz LAS; save the mask with the voxel order" in text
    assert "2.nii.gz: mask with grey values (0, 1, 2, 3, 4, 5, ... 6000 different ones)" in text
    assert "3.nii.gz: damaged or truncated" in text
    assert "4.nii.gz: is empty" in text


def test_a_frame_that_the_file_does_not_have_is_refused(tmp_path: Path) -> None:
    volume = save_nifti(tmp_path / "v.nii", np.zeros((4, 5, 6), np.int16))
    series = save_nifti(tmp_path / "s.nii", np.zeros((4, 5, 6, 2), np.int16))
    film = save_dicom(tmp_path / "f.dcm", np.zeros((3, 4, 5), np.uint8))
    plain = save(tmp_path / "p.png", square())
    wrong: list[tuple[Path, Sequence[Frame | None]]] = [
        (volume, (None, Frame("z", 6), Frame("x", 4), Frame("f", 0))),
        (series, (None, Frame("z", 0), Frame("z", 0, 2))),
        (film, (None, Frame("f", 3), Frame("z", 0))),
        (plain, (Frame("f", 1), Frame("z", 0))),
    ]
    for path, frames in wrong:
        for frame in frames:
            for read in (lambda p, f: plane_image(p, f, 1), plane_mask):
                with pytest.raises(DataError, match=rf"{path.name}: holds .* is meant; index the data again"):
                    read(path, frame)
    assert plane_mask(volume, Frame("z", 0, 1)).shape == (5, 4)  # the mask of a time of a series


def _save_pages(path: Path, stack: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *rest = [Image.fromarray(page) for page in stack]
    first.save(path, save_all=True, append_images=rest)
    return path


def test_pages_deeper_than_8_bits_have_one_maximum_and_must_be_alike(tmp_path: Path) -> None:
    deep = np.stack([texture(1).astype(np.uint16), texture(2).astype(np.uint16) * 16])
    path = _save_pages(tmp_path / "x.tif", deep)
    assert (plane_image(path, Frame("f", 0), 1)[..., 0] == np.rint(texture(1) * (255 / 4095))).all()
    Image.fromarray(texture(1)).save(
        tmp_path / "y.tif", save_all=True, append_images=[Image.fromarray(texture(2, channels=3))]
    )
    with pytest.raises(DataError, match=r"y\.tif: page 1 is of another kind"):
        plane_image(tmp_path / "y.tif", Frame("f", 0), 1)
    colour = np.stack([texture(n, channels=3) for n in range(2)])
    path = _save_pages(tmp_path / "c.tif", colour)
    assert (plane_image(path, Frame("f", 1), 3) == colour[1]).all()
    assert (plane_image(path, Frame("f", 1), 1) == read_image(save(tmp_path / "c.png", colour[1]), 1)).all()
    with pytest.raises(DataError, match=r"c\.tif: mask with grey values"):
        pages.read_labels(path, Coding())


def _record(masks: Sequence[Path], vote: bool) -> Record:
    names = tuple(path.name for path in masks)
    return Record("1", "1.png", names, "a", "", "", 4, 1, vote=vote)


def test_the_vote_of_raters_and_its_ties(tmp_path: Path) -> None:
    raters = [[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1], [1, 1, 0, 1]]
    paths = [save(tmp_path / f"m{n}.png", np.array([row], np.uint8)) for n, row in enumerate(raters)]
    assert record_mask(tmp_path, _record(paths[:3], True)).tolist() == [[0, 0, 1, 1]]
    assert record_mask(tmp_path, _record(paths, True)).tolist() == [[0, 0, 0, 1]]
    assert record_mask(tmp_path, _record(paths, False)).tolist() == [[1, 1, 1, 1]]
    assert record_mask(tmp_path, _record(paths[:1], True)).tolist() == [raters[0]]
    numbers = [save(tmp_path / f"k{n}.png", np.array([[n, 2, 1, 2]], np.uint8)) for n in (0, 1, 2)]
    assert record_mask(tmp_path, _record(numbers, True), 3).tolist() == [[0, 2, 1, 2]]
    with pytest.raises(DataError, match=r"k2\.png: gives pixels another class"):
        record_mask(tmp_path, _record(numbers[1:], False), 3)
    save(tmp_path / "m1.png", np.zeros((2, 4), np.uint8))
    with pytest.raises(DataError, match=r"m1\.png: is 4 x 2, but m0\.png is 4 x 1"):
        record_mask(tmp_path, _record(paths, True))
    with pytest.raises(DataError, match=r"1\.png: its mask was asked for"):
        record_mask(tmp_path, _record([], True))


@given(arrays(np.uint8, (5, 3, 4), elements=st.integers(0, 3)), st.integers(1, 5))
def test_majority_is_that_of_a_count_by_hand(votes: np.ndarray, raters: int) -> None:
    found = majority(list(votes[:raters]), [Path("m")] * raters, 4)
    for row in range(3):
        for column in range(4):
            counts = Counter(votes[:raters, row, column].tolist())
            assert found[row, column] == min(counts, key=lambda value: (-counts[value], value))


@given(
    arrays(st.sampled_from([np.uint8, np.int16, np.int64, np.float32, np.bool_]), (3, 4), elements=st.integers(0, 1)),
    st.sampled_from([1, 3, 70000, -5]),
)
def test_levels_and_percentiles_are_those_of_numpy(values: np.ndarray, factor: int) -> None:
    if values.dtype in (np.int64, np.float32):
        values = values * values.dtype.type(factor)
    for stored in (values, np.asfortranarray(values), values[::2]):
        assert levels(stored).tolist() == np.unique(stored).tolist()
        if stored.dtype != np.bool_:
            assert percentiles(stored, (0.5, 50, 99.5)) == pytest.approx(np.percentile(stored, (0.5, 50, 99.5)))


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.float32, np.int32, np.int64, np.uint64])
def test_counting_goes_over_more_than_one_block_and_to_the_ends_of_a_type(dtype: type) -> None:
    values = np.random.default_rng(0).normal(900, 300, (70, 80, 90)).astype(dtype)  # 504,000
    assert levels(values).tolist() == np.unique(values).tolist()
    assert percentiles(values, (0.5, 99.5)) == pytest.approx(np.percentile(values, (0.5, 99.5)))
    if np.issubdtype(dtype, np.integer):
        ends = np.array([np.iinfo(dtype).min, np.iinfo(dtype).max], dtype)
        assert levels(ends).tolist() == ends.tolist()


def test_units_of_records_are_those_of_one_file(tmp_path: Path) -> None:
    records = build_index(make_volumes(tmp_path / "v", slices=4)).records
    assert [len(unit) for unit in by_file(records)] == [4, 4, 4]
    plain = build_index(make_folders(tmp_path / "p")).records
    assert [len(unit) for unit in by_file(plain)] == [1] * len(plain)


def test_the_store_decodes_once_for_many_threads_and_again_after_a_change(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"1")
    calls: list[int] = []
    gate = threading.Barrier(8)
    store = Store(1000)

    def read() -> np.ndarray:
        calls.append(1)
        return np.zeros(100, np.uint8)

    def ask() -> None:
        gate.wait()
        assert len(store.get(path, "image", read).pixels) == 100

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    store.get(path, "mask", read)
    assert len(calls) == 2
    path.write_bytes(b"22")
    store.get(path, "image", read)
    assert len(calls) == 3
    with pytest.raises(DataError, match="does not exist"):
        store.get(tmp_path / "y", "image", read)


def test_the_store_forgets_the_oldest_beyond_its_limit_but_not_what_is_held(tmp_path: Path) -> None:
    calls: Counter[str] = Counter()
    store = Store(250)

    def get(name: str, keep: int = 2) -> Any:
        def read() -> np.ndarray:
            calls[name] += 1
            return np.zeros(100, np.uint8)

        return store.get(tmp_path / name, None, read, keep)

    for name in "abcd":
        (tmp_path / name).touch()
    held = get("a")
    for name in "bcdbcd":
        get(name)
    assert calls == {"a": 1, "b": 2, "c": 2, "d": 2}
    assert get("a") is held
    for name in "bcd":
        get(name, keep=3)
    before = calls.copy()
    for name in "bcdbcd":
        get(name, keep=3)
    assert calls == before


def test_a_file_that_cannot_be_read_is_decoded_once_too(tmp_path: Path, decoded: Counter[str]) -> None:
    path = save_nifti(tmp_path / "v.nii", np.full((4, 5, 6), np.nan, np.float32))
    for n in range(6):
        with pytest.raises(DataError, match="NaN"):
            plane_image(path, Frame("z", n), 1)
    assert sum(decoded.values()) == 1
