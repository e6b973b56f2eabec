"""Spoilt tables, descriptions and lists give an error of ours, or are read: never another exception."""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path

import pytest

from semidg.data.index import build_index, write_index
from semidg.data.index_file import read_index
from semidg.data.layouts import Choices
from semidg.data.lists import read_split, write_split
from semidg.data.roots import find
from semidg.data.splits import make_split
from semidg.data_config import SplitConfig
from semidg.errors import SemidgError

from .support import make_folders, save, square
from .test_mms import TABLE, make_mms
from .test_nnunet import _flat

#: What the files hold anyway, and what may break a reader of them.
PIECES = (
    *(
        ",",
        ";",
        '"',
        "\n",
        "\r",
        "\t",
        "\0",
        "\ufeff",
        "\\",
        "/",
        "..",
        "../",
        "[",
        "]",
        "{",
        "}",
        ":",
        "0",
        "-1",
        "1e999",
    ),
    *("nan", "null", "true", "image", "group", "vote", "yes", "z1", "z99999999", "x0t3", "é", "\ud800", " ", "x" * 300),
)


def _spoilt(text: bytes, seed: int) -> bytes:
    """``text`` after a few random cuts, doublings and insertions."""
    rng = random.Random(seed)
    for _ in range(rng.randint(1, 6)):
        start = rng.randint(0, len(text))
        end = min(len(text), start + rng.choice([0, 0, 1, 1, 3, 20, 200]))
        new = rng.choice(
            [b"", text[start:end] * 2, rng.choice(PIECES).encode("utf-8", "surrogatepass"), rng.randbytes(2)]
        )
        text = text[:start] + new + text[end:]
    return text


def _many(file: Path, rounds: int = 400) -> list[bytes]:
    original = file.read_bytes()
    return [_spoilt(original, seed) for seed in range(rounds)] + [b"", b"\xff", original[: len(original) // 2]]


def test_tables(tmp_path: Path) -> None:
    root = make_folders(tmp_path / "d")
    (root / "spacing.csv").write_text("image,row_mm,column_mm\na,0.1,0.2\n")
    table = root / "table.csv"
    write_index(build_index(root), table)
    index = tmp_path / "index.csv"
    for content in _many(table):
        table.write_bytes(content)
        index.write_bytes(content)
        with suppress(SemidgError):
            find(table, "auto", Choices())
        with suppress(SemidgError):
            read_index(index, root)


def test_group_files(tmp_path: Path) -> None:
    root = make_folders(tmp_path / "d")
    file = root / "groups.csv"
    file.write_text("image,group\na/images/0.png,p1\na/images/1.png,p1\nb/images/0.png,p 2\n")
    for content in _many(file):
        file.write_bytes(content)
        with suppress(SemidgError):
            find(root, "auto", Choices())


def test_descriptions_of_nnunet(tmp_path: Path) -> None:
    root = _flat(tmp_path)
    file = root / "dataset.json"
    for content in _many(file):
        file.write_bytes(content)
        with suppress(SemidgError):
            find(root, "nnunet", Choices())


def test_tables_of_mms(tmp_path: Path) -> None:
    root = make_mms(tmp_path)
    for content in _many(root / TABLE, rounds=150):
        (root / TABLE).write_bytes(content)
        with suppress(SemidgError):
            find(root, "auto", Choices(classes=4))


@pytest.mark.parametrize("file", ["labelled.txt", "test.txt", "split.json"])
def test_split_lists(tmp_path: Path, file: str) -> None:
    index = build_index(make_folders(tmp_path / "d", images=8))
    write_split(make_split(index.records, SplitConfig(target="b"), 0.5, 0), index.root, tmp_path / "s")
    text = (tmp_path / "s" / "split.json").read_text()
    if file != "split.json":  # the checksums would find every change
        (tmp_path / "s" / "split.json").write_text("{}")
    else:
        assert '"target": "b"' in text
    for content in _many(tmp_path / "s" / file):
        (tmp_path / "s" / file).write_bytes(content)
        with suppress(SemidgError):
            read_split(tmp_path / "s", index.records, index.root, "b")


def test_spoiling_reaches_both_the_reading_and_the_refusing(tmp_path: Path) -> None:
    """Else the tests above would say nothing."""
    table = tmp_path / "t.csv"
    for i in range(5):
        save(tmp_path / f"{i}.png", square())
    table.write_text("image,domain\n" + "".join(f"{i}.png,d\n" for i in range(5)))
    outcomes = []
    for content in _many(table):
        table.write_bytes(content)
        try:
            outcomes.append(not find(table, "csv", Choices()).problems)
        except SemidgError:
            outcomes.append(False)
    assert 0 < sum(outcomes) < len(outcomes)
