from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semidg.data import dataset
from semidg.data.dataset import ImageCache, default_folder, open_cache
from semidg.data.images import read_image, read_mask, resize_image, resize_mask
from semidg.data.index import Index, build_index
from semidg.errors import DataError

from .support import largest_file, make_folders, save, save_series, square, texture


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return build_index(make_folders(tmp_path / "data"))


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Grows by one whenever a cache is made."""
    made: list[Path] = []
    real = dataset._build

    def build(place: Path, *args: object) -> None:
        made.append(place)
        real(place, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(dataset, "_build", build)
    return made


def _open(index: Index, folder: Path, size: int = 16, channels: int = 3) -> ImageCache:
    return open_cache(index.root, index.records, size, channels, folder=folder)


def test_rows_hold_the_resized_images_and_masks(index: Index, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    records = index.records[::-1]
    cache = open_cache(
        index.root, records, 16, 3, 2, tmp_path / "cache", progress=lambda done, total: seen.append((done, total))
    )
    assert cache.images.shape == (8, 16, 16, 3)
    assert cache.masks.shape == (8, 16, 16)
    assert cache.images.dtype == cache.masks.dtype == np.uint8
    assert isinstance(cache.images, np.memmap)
    assert not cache.images.flags.writeable
    for record in records:
        row = cache.row(record.id)
        assert (cache.images[row] == resize_image(read_image(index.root / record.image, 3), 16)).all()
        if record.labelled:
            mask = read_mask([index.root / m for m in record.masks])
            assert (cache.masks[row] == resize_mask(mask, 16)).all()
            assert set(np.unique(cache.masks[row])) == {0, 1}
        else:
            assert (cache.masks[row] == 255).all()
    assert seen == [(n, 8) for n in range(1, 9)]
    with pytest.raises(DataError, match="'nobody' is not in the image cache"):
        cache.row("nobody")


def test_one_channel(index: Index, tmp_path: Path) -> None:
    assert _open(index, tmp_path / "cache", channels=1).images.shape == (8, 16, 16, 1)


def test_a_cache_is_made_once_whatever_the_order_of_the_records(
    index: Index, tmp_path: Path, builds: list[Path]
) -> None:
    first = _open(index, tmp_path / "cache")
    second = open_cache(index.root, index.records[::-1], 16, 3, folder=tmp_path / "cache")
    assert len(builds) == 1
    assert first.ids == second.ids


def test_a_change_of_source_or_setting_makes_a_new_cache(index: Index, tmp_path: Path, builds: list[Path]) -> None:
    folder = tmp_path / "cache"
    for mask in index.root.glob("*/masks/*.png"):
        save(mask, square() // 255)  # class numbers, so that three classes can be asked for too
    before = _open(index, folder).images[0].copy()
    _open(index, folder, size=20)
    _open(index, folder, channels=1)
    open_cache(index.root, index.records, 16, 3, 3, folder)
    open_cache(index.root, index.records[1:], 16, 3, 2, folder)
    unlabelled = [replace(record, masks=()) for record in index.records]
    assert (open_cache(index.root, unlabelled, 16, 3, 2, folder).masks == 255).all()
    assert len(set(builds)) == 6
    image = index.root / index.records[0].image
    save(image, 255 - texture(1000))
    assert (_open(index, folder).images[0] != before).any()
    stat = image.stat()
    os.utime(image, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000_000))
    _open(index, folder)
    assert len(set(builds)) == 8


def _flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        lambda place: _flip_a_byte(place / "images.npy"),
        lambda place: _flip_a_byte(place / "masks.npy"),
        lambda place: (place / "images.npy").write_bytes((place / "images.npy").read_bytes()[:-1]),
        lambda place: (place / "masks.npy").unlink(),
        lambda place: (place / "images.npy").write_bytes(b""),
        lambda place: (place / "images.npy").write_bytes((place / "masks.npy").read_bytes()),
        lambda place: (place / "cache.json").write_text("{"),
        lambda place: (place / "cache.json").write_text("[]"),
        lambda place: (place / "cache.json").write_text("{}"),
        lambda place: [path.unlink() for path in place.iterdir()],
    ],
)
def test_a_damaged_cache_is_made_again(index: Index, tmp_path: Path, builds: list[Path], damage: object) -> None:
    folder = tmp_path / "cache"
    good = _open(index, folder)
    images, masks = good.images.copy(), good.masks.copy()
    damage(good.folder)  # type: ignore[operator]
    again = _open(index, folder)
    assert len(builds) == 2
    assert (again.images == images).all()
    assert (again.masks == masks).all()
    assert sorted(path.name for path in folder.iterdir()) == sorted([again.folder.name, f"{again.folder.name}.lock"])


def test_a_copy_for_another_process_maps_the_files_and_does_not_carry_them(index: Index, tmp_path: Path) -> None:
    cache = _open(index, tmp_path / "cache", size=128)
    data = pickle.dumps(cache)
    assert len(data) < 1000
    copy = pickle.loads(data)
    assert (copy.images == cache.images).all()
    assert copy.row(index.records[3].id) == cache.row(index.records[3].id)


def _race(index: Index, folder: Path, start: Any, results: Any) -> None:
    built: list[Path] = []
    real = dataset._build
    dataset._build = lambda place, *args: (built.append(place), real(place, *args))[1]
    start.wait(timeout=60)
    cache = _open(index, folder, size=64)
    results.put((len(built), int(cache.images.sum()), int(cache.masks.sum())))


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_three_processes_at_once_make_one_cache(index: Index, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    start, results = context.Barrier(3), context.Queue()
    running = [context.Process(target=_race, args=(index, tmp_path / "cache", start, results)) for _ in range(3)]
    for process in running:
        process.start()
    found = [results.get(timeout=60) for _ in running]
    for process in running:
        process.join(timeout=60)
        assert process.exitcode == 0
    assert sum(built for built, *_ in found) == 1
    assert len({result[1:] for result in found}) == 1
    assert len(list((tmp_path / "cache").iterdir())) == 2  # the cache and its lock


def test_without_file_locks_the_rename_decides(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, builds: list[Path]
) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    barrier = threading.Barrier(4)
    real, caches, failures = dataset._require_space, [], []

    def wait(*args: object) -> None:
        barrier.wait(timeout=60)  # all four have seen that there is no cache
        real(*args)  # type: ignore[arg-type]

    def work() -> None:
        try:
            caches.append(_open(index, tmp_path / "cache"))
        except Exception as error:
            failures.append(error)

    monkeypatch.setattr(dataset, "_require_space", wait)
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(builds) == 4
    assert len({int(cache.images.sum()) for cache in caches}) == 1
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_what_a_killed_process_left_is_cleared_away(index: Index, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    place = _open(index, folder).folder
    stale = folder / f"{place.name}.killed.tmp"
    place.rename(stale)
    assert _open(index, folder).folder == place
    assert not stale.exists()


def test_a_source_that_became_unreadable_is_a_data_error_and_leaves_nothing(index: Index, tmp_path: Path) -> None:
    (index.root / index.records[5].image).write_bytes(b"junk")
    with pytest.raises(DataError, match=r"1\.png: is not an image"):
        _open(index, tmp_path / "cache")
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]
    (index.root / index.records[5].image).unlink()
    with pytest.raises(DataError, match=r"1\.png: No such file.*; restore"):
        _open(index, tmp_path / "cache")


def test_too_little_space_is_noticed_before_anything_is_written(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 8191}))
    with pytest.raises(DataError, match=r"cache: the image cache needs 8,192 bytes, but only 8,191 are free"):
        _open(index, tmp_path / "cache")
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_a_disk_that_fills_up_meanwhile_is_a_data_error_and_leaves_nothing(index: Index, tmp_path: Path) -> None:
    with largest_file(50_000), pytest.raises(DataError) as caught:
        _open(index, tmp_path / "cache", size=128)
    assert f"{tmp_path / 'cache'}: the image cache of 524,288 bytes cannot be written" in str(caught.value)
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_a_folder_that_cannot_be_made_is_a_data_error(index: Index, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file/cache: .* cannot be written .*data\.cache or SEMIDG_CACHE"):
        _open(index, tmp_path / "file" / "cache")


def test_no_records_and_paths_out_of_the_root_are_refused(index: Index, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images"):
        open_cache(index.root, [], 16, 3, folder=tmp_path)
    with pytest.raises(DataError, match="below the data set's root"):
        open_cache(index.root, [replace(index.records[0], image="../x.png")], 16, 3, folder=tmp_path)


def test_the_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, index: Index) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SEMIDG_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert default_folder() == tmp_path / ".cache" / "semidg"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_folder() == tmp_path / "xdg" / "semidg"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert default_folder() == tmp_path / "Library" / "Caches" / "semidg"
    monkeypatch.setenv("SEMIDG_CACHE", str(tmp_path / "mine"))
    assert open_cache(index.root, index.records, 8, 1).folder.parent == tmp_path / "mine"


def test_a_large_cache_is_checked_at_some_rows(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, builds: list[Path]
) -> None:
    cache = _open(index, tmp_path / "cache")
    checked: list[int] = []
    monkeypatch.setattr(dataset, "_CHECKED_BYTES", 4 * 16 * 16 * 4)
    real = dataset.zlib.crc32
    monkeypatch.setattr(dataset.zlib, "crc32", lambda data: checked.append(1) or real(data))
    _open(index, tmp_path / "cache")
    assert len(builds) == 1
    assert 0 < len(checked) < 2 * len(cache)
    assert json.loads((cache.folder / "cache.json").read_text())["format"] == "semidg-cache"


@pytest.mark.busi
def test_the_cache_of_the_real_busi_data(busi_index: Index, tmp_path: Path, builds: list[Path]) -> None:
    for _ in range(2):
        cache = open_cache(busi_index.root, busi_index.records, 128, 3, folder=tmp_path)
    assert len(builds) == 1
    assert cache.images.shape == (647, 128, 128, 3)
    assert set(np.unique(cache.masks)) == {0, 1}
    areas = cache.masks.mean(axis=(1, 2))
    assert np.median(areas) == pytest.approx(0.058, abs=0.002)
    assert areas.min() > 0


def test_a_changed_slice_that_is_not_listed_makes_the_cache_anew(tmp_path: Path, builds: list[Path]) -> None:
    """The grey values of a series are those of all its files."""
    paths = save_series(tmp_path / "d" / "s", np.stack([texture(k).astype(np.int16) * 9 for k in range(4)]))
    (tmp_path / "d" / "t.csv").write_text("image\ns/1.dcm\ns/2.dcm\n")
    index = build_index(tmp_path / "d" / "t.csv")
    one = _open(index, tmp_path / "cache").images[:].copy()
    _open(index, tmp_path / "cache")
    assert len(builds) == 1
    save_series(tmp_path / "d" / "s", np.stack([texture(k).astype(np.int16) * (90 if k == 0 else 9) for k in range(4)]))
    assert paths[0].name == "4.dcm"
    assert (_open(index, tmp_path / "cache").images[:] != one).any()
    assert len(builds) == 2
