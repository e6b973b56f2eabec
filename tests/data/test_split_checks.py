"""The held-out domain is kept apart, in drawn splits and in lists of the user's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semidg.data.lists import read_split
from semidg.data.split_checks import refuse_target
from semidg.data.splits import make_split
from semidg.data_config import SplitConfig
from semidg.errors import SplitError
from semidg.types import Record

from .support import record


def _lists(folder: Path, **parts: list[Record]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, records in parts.items():
        (folder / f"{name}.txt").write_text("".join("\t".join((r.image, *r.masks)) + "\n" for r in records))
    return folder


A = [record(f"a{i}", "a") for i in range(4)]
B = [record(f"b{i}", "b") for i in range(4)]
TWIN = record("twin", "a", group="b0")


@pytest.mark.parametrize("part", ["labelled", "unlabelled", "validation"])
@pytest.mark.parametrize(("wrong", "reason"), [(B[0], "of the held-out domain"), (TWIN, "in one group with b0")])
def test_a_target_image_and_its_twin_are_refused_in_every_list(
    tmp_path: Path, part: str, wrong: Record, reason: str
) -> None:
    parts = {"labelled": A[:2], "unlabelled": A[2:3], "validation": A[3:], "test": B[1:]}
    everything = [*A, *B, TWIN]
    assert read_split(_lists(tmp_path / "good", **parts), everything, tmp_path, "b").test == tuple(B[1:])
    folder = _lists(tmp_path / "bad", **(parts | {part: [*parts[part], wrong]}))
    with pytest.raises(
        SplitError, match=rf"1 image\(s\) do not keep the domain b apart: {wrong.id} \({part}\): .*{reason}"
    ):
        read_split(folder, everything, tmp_path, "b")
    read_split(folder, everything, tmp_path)  # without a target the lists are as good as any
    (folder / "split.json").write_text(json.dumps({"target": "b", "protocol": "random"}))
    with pytest.raises(SplitError, match="do not keep the domain b apart"):
        read_split(folder, everything, tmp_path)
    (folder / "split.json").write_text(json.dumps({"target": "b", "oracle": True}))
    read_split(folder, everything, tmp_path)


def test_a_test_part_of_another_domain_and_an_unknown_target_are_refused(tmp_path: Path) -> None:
    folder = _lists(tmp_path / "l", labelled=A[:2], test=[A[3], *B])
    with pytest.raises(SplitError, match=r"a3 \(test\): of the domain a"):
        read_split(folder, [*A, *B], tmp_path, "b")
    with pytest.raises(SplitError, match="'c' is unknown; the data has a, b"):
        read_split(folder, [*A, *B], tmp_path, "c")
    (folder / "split.json").write_text('{"target": 3}')
    with pytest.raises(SplitError, match="no name of a domain"):
        read_split(folder, [*A, *B], tmp_path)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9), st.booleans()), min_size=12, max_size=40),
    st.sampled_from(["grouped", "random"]),
    st.integers(0, 5),
)
def test_no_drawn_split_needs_the_guard(images: list[tuple[str, int, bool]], protocol: str, seed: int) -> None:
    records = [
        record(f"{i:02}", domain, group=f"g{group}", labelled=labelled)
        for i, (domain, group, labelled) in enumerate(images)
    ]
    config = SplitConfig.model_validate({"target": "a", "protocol": protocol, "validation": 0.0, "seed": seed})
    try:
        split = make_split(records, config, 0.5, seed)
    except SplitError as error:  # too few images
        if "do not keep" in str(error):
            raise
        return
    touched = {r.group for r in records if r.domain == "a"}
    for part in ("labelled", "unlabelled", "validation"):
        assert not any(r.domain == "a" or r.group in touched for r in split.parts()[part])
    assert all(r.domain == "a" for r in split.test)
    refuse_target(split.parts(), records, "a", "test")


def test_a_domain_without_labels_is_an_unlabelled_pool() -> None:
    pool = [record(f"p{i}", "pool", labelled=False) for i in range(5)]
    split = make_split([*A, *B, *pool], SplitConfig(target="b", validation=0.25), 0.5, 0)
    assert {r.domain for r in split.labelled} == {"a"}
    assert {r for r in split.unlabelled if r.domain == "pool"} == set(pool)
    assert {r.domain for r in (*split.validation, *split.test)} == {"a", "b"}
    with pytest.raises(SplitError, match="no image of that domain has a mask"):
        make_split([*A, *pool], SplitConfig(target="pool"), 0.5, 0)
