"""Groups: near-duplicates, patients and volumes as connected components of all relations."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semidg.config_file import parse_config
from semidg.data.groups import pattern_groups, unite
from semidg.data.index import build_index
from semidg.data.splits import make_split
from semidg.data_config import SplitConfig
from semidg.errors import ConfigError, DataError

from .support import make_busi, make_folders, record, save, square, texture


def _slow_groups(count: int, relations: list[list[str | None]]) -> list[int]:
    """Union-find, pair by pair."""
    parent = list(range(count))

    def top(image: int) -> int:
        while parent[image] != image:
            image = parent[image]
        return image

    for relation in relations:
        for a in range(count):
            for b in range(a):
                if relation[a] is not None and relation[a] == relation[b]:
                    parent[top(a)] = top(b)
    roots = [top(image) for image in range(count)]
    return [list(dict.fromkeys(roots)).index(root) for root in roots]


@settings(max_examples=200, deadline=None)
@given(st.data(), st.integers(0, 30), st.integers(0, 4))
def test_groups_are_those_of_a_slow_union_find(data: st.DataObject, count: int, kinds: int) -> None:
    label = st.none() | st.sampled_from("abcdefgh")
    relations = [data.draw(st.lists(label, min_size=count, max_size=count)) for _ in range(kinds)]
    assert unite(count, relations).tolist() == _slow_groups(count, relations)


def test_one_name_in_two_relations_joins_nothing() -> None:
    assert unite(2, [["p1", None], [None, "p1"]]).tolist() == [0, 1]


def test_a_pattern_names_the_patient_and_must_fit_every_image() -> None:
    records = [record(f"a/images/p{patient}_{i}") for patient, i in ((1, 1), (1, 2), (2, 1))]
    assert pattern_groups(records, r"/p(\d+)_") == ["1", "1", "2"]
    with pytest.raises(DataError, match=r"does not fit 1 of 4 images.*\n  x\\ny\.png"):
        pattern_groups([*records, record("x\ny")], r"/p(\d+)_")
    assert pattern_groups([*records, record("x")], r"/p(\d+)_|$") == ["1", "1", "2", None]


@pytest.mark.parametrize(
    ("pattern", "reason"), [(r"p\d", "exactly one group"), (r"(a)(b)", "has 2"), ("(", "not a regular expression")]
)
def test_a_pattern_without_exactly_one_group_is_refused(pattern: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=f"data.groups: .*{reason}"):
        parse_config({"data": {"groups": pattern}}, "test")


def test_near_duplicates_and_patients_chain_across_domains_and_classes(tmp_path: Path) -> None:
    root = make_folders(tmp_path / "d", domains=("a", "b", "c"), images=3, unlabelled=0)
    save(root / "b" / "images" / "0.png", texture(1000))  # the twin of a/0
    (root / "groups.csv").write_text("image,group\nb/images/0.png,p7\nc/images/2.png,p7\n")
    groups = {r.id: r.group for r in build_index(root).records}
    assert groups == {**{name: name for name in groups}, "b/0": "a/0", "c/2": "a/0"}
    both = {r.id: r.group for r in build_index(root, groups=r"images/([01])|$").records}
    assert both["a/0"] == both["b/0"] == both["c/0"] == both["c/2"]


def test_images_of_a_patient_are_on_one_side_of_every_split(tmp_path: Path) -> None:
    for patient in range(8):
        for i in range(3):
            save(tmp_path / "a" / "images" / f"p{patient}-{i}.png", texture(10 * patient + i))
            save(tmp_path / "a" / "masks" / f"p{patient}-{i}.png", square())
    index = build_index(tmp_path, groups=r"/(p\d+)-")
    assert len({r.group for r in index.records}) == 8
    for seed in range(5):
        split = make_split(index.records, SplitConfig(seed=seed, validation=0.2), 0.4, seed)
        sides = {name: {r.id[:4] for r in records} for name, records in split.parts().items()}
        training = sides["labelled"] | sides["unlabelled"]
        assert not training & sides["validation"]
        assert not training & sides["test"]
        assert not sides["validation"] & sides["test"]
        assert not sides["labelled"] & sides["unlabelled"]


@pytest.mark.parametrize(
    ("text", "reasons"),
    [
        ("image,group\na/images/9.png,p\n", ["line 2: 'a/images/9.png' is no image"]),
        (
            "image,group\na/images/1.png,p\na/images/1.png,q\n../x.png,q\na/images/2.png,\nx\n",
            [
                "line 3: 'a/images/1.png' stands twice",
                r"line 4: ../x.png: must be",
                "line 5: no group",
                "line 6: 1 cells",
            ],
        ),
        ("image,set\n", ["no column group"]),
        ("", ["is empty"]),
        ("image;group\na;b\n", ["commas, not by ';'"]),
        ('image,group\n"a', ["not a CSV file"]),
    ],
)
def test_a_group_file_that_does_not_fit_is_refused_with_every_line(
    tmp_path: Path, text: str, reasons: list[str]
) -> None:
    root = make_folders(tmp_path / "d")
    (root / "groups.csv").write_text(text)
    with pytest.raises(DataError) as caught:
        build_index(root)
    assert all(reason in str(caught.value) for reason in reasons), str(caught.value)


def test_a_group_file_serves_the_busi_layout_too(tmp_path: Path) -> None:
    make_busi(tmp_path)
    (tmp_path / "groups.csv").write_text("image,group\nbenign/benign (1).png,p\nmalignant/malignant (2).png,p\n")
    groups = {r.id: r.group for r in build_index(tmp_path).records}
    assert groups["malignant/malignant (2)"] == groups["benign/benign (1)"] == "benign/benign (1)"
