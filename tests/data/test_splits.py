from __future__ import annotations

import itertools
import json
import random
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semidg.config_file import parse_config
from semidg.data.draw import nearest_sum
from semidg.data.index import Index, build_index
from semidg.data.splits import PARTS, Split, make_split, read_split, write_split
from semidg.data_config import SplitConfig
from semidg.errors import ConfigError, SplitError
from semidg.evaluation.protocols import protocol_of
from semidg.types import Record

from .support import make_folders, record


@st.composite
def data_sets(draw: st.DrawFn) -> list[Record]:
    """Up to 60 records of up to three domains and two classes in groups that may mix them, some without mask."""
    count = draw(st.integers(20, 60))
    rng = random.Random(draw(st.integers(0, 2**32)))
    groups = draw(st.integers(8, 60))
    unlabelled = draw(st.sampled_from([0.0, 0.3]))
    return [
        record(
            f"{i:03d}",
            domain=rng.choice("abc"),
            class_name=rng.choice(["benign", "malignant"]),
            group=f"g{rng.randrange(groups)}",
            labelled=rng.random() >= unlabelled,
        )
        for i in range(count)
    ]


def _made(records: list[Record], config: SplitConfig, labelled: float, seed: int) -> Split | None:
    """The split, or None where the data are too few for what was asked, which is allowed to happen."""
    try:
        return make_split(records, config, labelled, seed)
    except SplitError as error:
        if re.search("leaves no group|no training image|is left outside|has a mask", str(error)):
            return None
        raise


def _ids(split: Split) -> dict[str, set[str]]:
    return {name: {record.id for record in records} for name, records in split.parts().items()}


@settings(max_examples=150, deadline=None)
@given(
    data_sets(),
    st.sampled_from(["grouped", "random"]),
    st.sampled_from([None, "a"]),
    st.floats(0.05, 1),
    st.integers(-5, 5),
    st.floats(0, 0.4),
    st.floats(0, 0.4),
)
def test_what_every_split_holds(
    records: list[Record], protocol: str, target: str | None, labelled: float, seed: int, validation: float, test: float
) -> None:
    config = SplitConfig.model_validate(
        {"protocol": protocol, "target": target, "validation": validation, "test": test, "seed": seed}
    )
    split = _made(records, config, labelled, seed)
    if split is None:
        return
    ids = _ids(split)
    left_out = [id for found in split.meta["left_out"].values() for id in found]

    assert sorted(itertools.chain(*ids.values(), left_out)) == sorted(r.id for r in records)  # disjoint and complete
    assert all(r.labelled for r in (*split.labelled, *split.validation, *split.test))
    by_id = {r.id: r for r in records}
    assert target is not None or not any(by_id[id].labelled for id in left_out)

    sides = [(*split.labelled, *split.unlabelled), split.validation, split.test]
    groups = [{r.group for r in side} for side in sides]
    if protocol == "grouped":
        assert not any(a & b for a, b in itertools.combinations(groups, 2))
        assert not {r.group for r in split.labelled} & {r.group for r in split.unlabelled if r.labelled}
    if target:
        assert {r.id for r in split.test} == {r.id for r in records if r.domain == "a" and r.labelled}
        assert not groups[2] & (groups[0] | groups[1])

    training = sum(r.labelled for side in sides[:1] for r in side)
    largest = max(Counter(r.group for r in records).values()) if protocol == "grouped" else 1
    assert abs(len(split.labelled) - labelled * training) <= largest
    assert split.meta["labelled_of_training"] == [len(split.labelled), training]

    again = make_split(random.Random(seed).sample(records, len(records)), config, labelled, seed)
    assert again == split


@settings(max_examples=50, deadline=None)
@given(data_sets(), st.integers(0, 3), st.integers(4, 9), st.floats(0.3, 0.6))
def test_validation_and_test_depend_on_the_seed_of_the_split_alone(
    records: list[Record], first: int, second: int, labelled: float
) -> None:
    one, two = _made(records, SplitConfig(), 0.5, first), _made(records, SplitConfig(), labelled, second)
    if one is not None and two is not None:
        assert (one.validation, one.test) == (two.validation, two.test)


def _regular(per_stratum: int = 40) -> list[Record]:
    """Two domains and two classes, each with as many images, a quarter of which are in pairs."""
    return [
        record(f"{d}{c}{i:02d}", d, c, group=f"{d}{c}{i // 2 if i < per_stratum // 4 else i + 1000}")
        for d in "ab"
        for c in ("benign", "malignant")
        for i in range(per_stratum)
    ]


def test_parts_have_the_sizes_asked_for_and_are_stratified() -> None:
    split = make_split(_regular(), SplitConfig(validation=0.1, test=0.2), labelled=0.25, seed=0)
    assert {name: len(records) for name, records in split.parts().items()} == {
        "labelled": 28,
        "unlabelled": 84,
        "validation": 16,
        "test": 32,
    }
    for records in split.parts().values():
        strata = Counter((r.domain, r.class_name) for r in records)
        assert len(strata) == 4
        assert max(strata.values()) - min(strata.values()) <= 2


@pytest.mark.parametrize("labelled", [0.01, 0.02, 0.1, 0.5, 1.0])
def test_the_number_of_labelled_images_is_the_nearest_possible(labelled: float) -> None:
    split = make_split(_regular(), SplitConfig(), labelled, seed=3)
    chosen, training = split.meta["labelled_of_training"]
    assert training == 112
    assert abs(chosen - labelled * training) <= 0.5


def test_single_images_make_up_for_what_pairs_cannot_give() -> None:
    records = [record(f"a{i}", "a") for i in range(10)] + [record(f"b{i}", "b", group=f"b{i // 2}") for i in range(10)]
    split = make_split(records, SplitConfig(validation=0, test=0), labelled=0.3, seed=0)
    assert Counter(r.domain for r in split.labelled) == {"a": 2, "b": 4}  # three of each is not possible, six in all is


def test_seeds_draw_different_images_and_not_the_first_ones() -> None:
    drawn = [_ids(make_split(_regular(), SplitConfig(), 0.25, seed))["labelled"] for seed in range(20)]
    assert len({frozenset(ids) for ids in drawn}) == 20
    often = Counter(id for ids in drawn for id in ids)
    assert len(often) == 112  # with 20 draws of a quarter every training image is drawn at some time
    assert max(often.values()) < 16
    tests = {frozenset(_ids(make_split(_regular(), SplitConfig(seed=s), 0.25, 0))["test"]) for s in range(5)}
    assert len(tests) == 5


def test_the_draw_is_the_same_on_every_machine() -> None:
    split = make_split(_regular(8), SplitConfig(), 0.25, seed=0)
    assert [r.id for r in split.labelled] == [
        "abenign04",
        "amalignant00",
        "amalignant01",
        "bbenign06",
        "bmalignant04",
        "bmalignant05",
    ]


def test_groups_are_ignored_by_the_random_protocol_and_the_twins_are_counted() -> None:
    records = [record(f"{i:02d}", group=f"g{i // 2}") for i in range(40)]
    split = make_split(records, SplitConfig(protocol="random"), 0.5, 0)
    training = {r.group for r in (*split.labelled, *split.unlabelled)}
    assert split.meta["twins_in_training"]["test"] == sum(r.group in training for r in split.test) > 0
    assert make_split(records, SplitConfig(), 0.5, 0).meta["twins_in_training"] == {"validation": 0, "test": 0}


@pytest.mark.parametrize("protocol", ["grouped", "random"])
def test_twins_of_the_target_leave_training_and_validation(protocol: str) -> None:
    records = [record(f"a{i}", "a", group=f"g{i}") for i in range(10)]
    records += [record(f"b{i}", "b", group=f"g{i}" if i < 3 else f"b{i}") for i in range(20)]
    records.append(record("a-unlabelled", "a", labelled=False))
    config = SplitConfig.model_validate({"target": "a", "protocol": protocol})
    split = make_split(records, config, 0.5, 0)
    assert len(split.test) == 10
    assert split.meta["left_out"] == {
        "target domain, without mask": ["a-unlabelled"],
        "twin of a target image": ["b0", "b1", "b2"],
    }
    assert len(split.labelled) + len(split.unlabelled) + len(split.validation) == 17


def test_an_oracle_trains_on_the_reserved_images_of_the_target_and_is_scored_on_the_same_test_part() -> None:
    records = [
        *_regular(),
        record("bt", "b", group="aa"),
        record("at", "a", group="aa"),
        record("au", "a", labelled=False),
    ]
    held_out = make_split(records, SplitConfig(target="a", reserve=0.5), 0.25, 0)
    oracle = make_split(records, SplitConfig(target="a", reserve=0.5, oracle=True), 1.0, 3)
    assert oracle.test == held_out.test
    reserved = set(held_out.meta["left_out"]["target domain, reserved"])
    assert {r.id for r in (*oracle.labelled, *oracle.validation)} == reserved
    assert len(reserved) == pytest.approx(len(held_out.test), abs=2)
    assert reserved | {r.id for r in held_out.test} == {r.id for r in records if r.domain == "a" and r.labelled}
    assert oracle.validation
    assert not oracle.unlabelled
    sides = [{r.group for r in side} for side in (oracle.labelled, oracle.validation, oracle.test)]
    assert not any(a & b for a, b in itertools.combinations(sides, 2))
    assert not {r.domain for r in (*held_out.labelled, *held_out.unlabelled, *held_out.validation)} & {"a"}
    for split in (held_out, oracle):
        everything = [*itertools.chain(*_ids(split).values()), *itertools.chain(*split.meta["left_out"].values())]
        assert sorted(everything) == sorted(r.id for r in records)
    assert oracle.meta["oracle"] is True
    assert protocol_of(SplitConfig(target="a", reserve=0.5, oracle=True), {}).mark
    assert protocol_of(SplitConfig(target="a", reserve=0.5), {}).name == "leave_one_domain_out"


@pytest.mark.parametrize(
    ("split", "reason"),
    [({"oracle": True}, "set data.split.target"), ({"target": "a", "oracle": True}, "set data.split.reserve")],
)
def test_an_oracle_without_images_of_the_target_is_refused(split: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        parse_config({"data": {"split": split}}, "test")


def test_an_unlabelled_twin_of_an_evaluation_image_is_in_no_part() -> None:
    records = [record(f"{i:02d}", group=f"g{i}") for i in range(20)]
    records += [record(f"u{i:02d}", group=f"g{i}", labelled=False) for i in range(20)]
    split = make_split(records, SplitConfig(), 0.5, 0)
    evaluated = {r.group for r in (*split.validation, *split.test)}
    assert len(evaluated) == 6
    assert split.meta["left_out"] == {
        "without mask, twin of an evaluation image": [r.id for r in records[20:] if r.group in evaluated]
    }


@pytest.mark.parametrize(
    ("records", "config", "labelled", "reason"),
    [
        ([], {}, 0.5, "no image of the data has a mask"),
        ([record("x", labelled=False)], {}, 0.5, "no image of the data has a mask"),
        (_regular(), {"target": "c"}, 0.5, r"target = 'c': unknown domain; the data has a, b"),
        ([record("x")], {"target": "a"}, 0.5, "no image with a mask is left outside"),
        ([record("x"), record("y", "b", labelled=False)], {"target": "b"}, 0.5, "no image of that domain has a mask"),
        (_regular(), {"target": "a", "reserve": 0.001}, 0.5, "reserve = 0.001: leaves 0 of the 80 images of a"),
        (_regular(), {"target": "a", "reserve": 0.999}, 0.5, "reserve = 0.999: leaves 80 of the 80 images of a"),
        (_regular(), {}, 0.001, r"labelled = 0.001: leaves no group of the 112 .* 0\.0089 or more"),
        (_regular(), {}, 0.0, "must be above 0"),
        (_regular(), {}, 1.5, "at most 1"),
        (_regular(), {"validation": 0.001}, 0.5, "data.split.validation = 0.001: leaves no group"),
        (_regular(), {"test": 0.001}, 0.5, "data.split.test = 0.001: leaves no group"),
        (_regular(), {"test": 0.6, "validation": 0.4}, 0.5, "must stay below 1"),
        ([record("x", group="g"), record("y", group="g")], {"validation": 0, "test": 0.5}, 0.5, "no training image"),
        ([record("x"), record("x")], {}, 0.5, "'x' stands twice"),
    ],
)
def test_splits_that_cannot_be_made(records: list[Record], config: dict, labelled: float, reason: str) -> None:
    with pytest.raises(SplitError, match=reason):
        make_split(records, SplitConfig.model_validate(config), labelled, 0)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 9), max_size=10), st.floats(-3, 60))
def test_nearest_sum_is_the_nearest_of_all_subsets(sizes: list[int], target: float) -> None:
    taken = nearest_sum(sizes, target)
    found = sum(size for size, take in zip(sizes, taken, strict=True) if take)
    sums = {sum(subset) for n in range(len(sizes) + 1) for subset in itertools.combinations(sizes, n)}
    assert abs(found - max(target, 0)) == pytest.approx(min(abs(s - max(target, 0)) for s in sums))


def test_nearest_sum_of_many_groups() -> None:
    sizes = [3, 1, 7, 2] * 10_000
    taken = nearest_sum(sizes, 50_000.4)
    assert sum(size for size, take in zip(sizes, taken, strict=True) if take) == 50_000


# ---- text lists -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    return build_index(make_folders(tmp_path_factory.mktemp("data"), images=10, unlabelled=2))


@pytest.fixture
def folder(tmp_path: Path, index: Index) -> Path:
    """A written split of ``index``."""
    write_split(make_split(index.records, SplitConfig(), 0.5, 0), index.root, tmp_path / "split")
    return tmp_path / "split"


def test_lists_and_description_are_written_in_the_documented_form(folder: Path, index: Index) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted([*(f"{p}.txt" for p in PARTS), "split.json"])
    assert [path.name for path in folder.parent.iterdir()] == ["split"]
    for line in (folder / "labelled.txt").read_text().splitlines():
        assert re.fullmatch(r"[ab]/images/(\d+)\.png\t[ab]/masks/\1\.png", line)
    assert re.search(r"^a/images/11\.png$", (folder / "unlabelled.txt").read_text(), re.MULTILINE)
    meta = json.loads((folder / "split.json").read_text())
    assert (meta["format"], meta["version"], meta["protocol"]) == ("semidg-split", 1, "grouped")
    assert meta["counts"]["test"] == {"images": 4, "groups": 4, "domains": {"a": 2, "b": 2}, "classes": {"": 4}}
    assert set(meta["sha256"]) == {f"{part}.txt" for part in PARTS}


def test_a_split_is_read_back_as_it_was_and_can_be_written_again(folder: Path, index: Index) -> None:
    split = make_split(index.records, SplitConfig(), 0.5, 0)
    read = read_split(folder, index.records, index.root)
    assert read.parts() == split.parts()
    assert read.meta["counts"] == split.meta["counts"]
    other = make_split(index.records, SplitConfig(), 0.25, 1)
    write_split(other, index.root, folder)
    assert read_split(folder, index.records, index.root).parts() == other.parts()
    assert [path.name for path in folder.parent.iterdir()] == ["split"]


simple_names = st.text(st.characters(exclude_characters="\0/\t\n\r", exclude_categories=["Cs"]), min_size=1)


@settings(max_examples=60, deadline=None)
@given(st.lists(simple_names.filter(lambda n: n not in {".", ".."}), min_size=4, max_size=12, unique=True))
def test_lists_round_trip_whatever_the_names(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    root = tmp_path_factory.mktemp("r")
    records = [Record(n, f"i/{n}", (f"m/{n}", f"m2/{n}")[: 1 + k % 2], "a", "", n, 4, 4) for k, n in enumerate(names)]
    split = Split(tuple(records[:2]), tuple(records[2:3]), (), tuple(records[3:]))
    write_split(split, root, root / "split")
    read = read_split(root / "split", records, root)
    assert {k: set(v) for k, v in read.parts().items()} == {k: set(v) for k, v in split.parts().items()}


@pytest.mark.parametrize("name", ["a\tb.png", "a\nb.png", "a\rb.png", "../b.png"])
def test_names_that_do_not_fit_a_list_are_refused_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    bad = Record("x", name, ("m.png",), "a", "", "x", 4, 4)
    with pytest.raises(SplitError):
        write_split(Split((bad,), (), (), ()), tmp_path, tmp_path / "split")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_other_files_is_not_replaced(tmp_path: Path, index: Index) -> None:
    (tmp_path / "thesis.doc").touch()
    with pytest.raises(SplitError, match="holds other files than a split"):
        write_split(make_split(index.records, SplitConfig(), 0.5, 0), index.root, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.doc"]


@pytest.mark.parametrize("failing", [1, 4, 5])
def test_a_failed_write_keeps_the_older_split(
    folder: Path, index: Index, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    calls = itertools.count(1)
    real = Path.write_text

    def full(path: Path, *args: object, **options: object) -> int:
        if next(calls) == failing:
            raise OSError(28, "No space left on device")
        return real(path, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(SplitError, match="No space left"):
        write_split(make_split(index.records, SplitConfig(), 0.25, 1), index.root, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["split"]


def test_an_edited_list_is_refused_until_split_json_is_removed(folder: Path, index: Index) -> None:
    path = folder / "unlabelled.txt"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(SplitError, match=r"unlabelled\.txt: was changed after"):
        read_split(folder, index.records, index.root)
    (folder / "split.json").unlink()
    assert len(read_split(folder, index.records, index.root).unlabelled) == 10


def test_a_missing_list_and_a_spoilt_description_are_refused(folder: Path, index: Index) -> None:
    (folder / "test.txt").rename(folder / "gone")
    with pytest.raises(SplitError, match=r"test\.txt: the list is missing"):
        read_split(folder, index.records, index.root)
    (folder / "gone").rename(folder / "test.txt")
    meta = json.loads((folder / "split.json").read_text())
    for text, reason in {
        "{": "cannot be read as JSON",
        "[]": "is not a description",
        json.dumps({**meta, "version": 2}): "another format or version",
        json.dumps({**meta, "ids_sha256": "0"}): "the ids of the images are not those",
    }.items():
        (folder / "split.json").write_text(text)
        with pytest.raises(SplitError, match=reason):
            read_split(folder, index.records, index.root)
    with pytest.raises(SplitError, match="no folder of split lists"):
        read_split(folder / "nowhere", index.records, index.root)


def _own_lists(folder: Path, **lists: list[str]) -> Path:
    folder.mkdir()
    for part, lines in lists.items():
        (folder / f"{part}.txt").write_text("".join(f"{line}\r\n" for line in lines), newline="")
    return folder


def test_lists_of_ones_own_need_only_the_labelled_part(tmp_path: Path, index: Index) -> None:
    folder = _own_lists(
        tmp_path / "own",
        labelled=["a/images/0.png\ta/masks/0.png", ""],
        unlabelled=["a/images/10.png", "a/images/1.png", "a/images/2.png\ta/masks/2.png"],
    )
    split = read_split(folder, index.records, index.root)
    assert _ids(split) == {
        "labelled": {"a/0"},
        "unlabelled": {"a/10", "a/1", "a/2"},
        "validation": set(),
        "test": set(),
    }
    (folder / "labelled.txt").write_text("")
    with pytest.raises(SplitError, match="training needs labelled images"):
        read_split(folder, index.records, index.root)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("a/images/99.png\ta/masks/99.png", r"line 2: a/images/99\.png is not an image of the data set"),
        ("a/images/0.png\ta/masks/0.png", r"line 2: a/images/0\.png already stands in labelled\.txt"),
        ("a/images/1.png\ta/masks/2.png", r"line 2: the mask files of a/images/1\.png in the data are: a/masks/1\.png"),
        ("a/images/1.png", "line 2: the mask files of"),
        ("a/images/10.png", "line 2: .* has no mask"),
        ("../images/1.png\ta/masks/1.png", "line 2: .*below the data set's root"),
        ("a/images/1.png\t/etc/passwd", "line 2: .*below the data set's root"),
    ],
)
def test_a_wrong_line_is_refused_with_its_number(tmp_path: Path, index: Index, line: str, reason: str) -> None:
    good = "a/images/5.png\ta/masks/5.png"
    folder = _own_lists(tmp_path / "own", labelled=["a/images/0.png\ta/masks/0.png"], test=[good, line])
    with pytest.raises(SplitError, match=rf"test\.txt, {reason}"):
        read_split(folder, index.records, index.root)


def test_twins_across_parts_are_refused_unless_the_protocol_says_random(tmp_path: Path) -> None:
    twins = [record("x", group="g"), record("y", group="g")]
    folder = _own_lists(tmp_path / "own", labelled=["x.png\tx_mask.png"], test=["y.png\ty_mask.png"])
    with pytest.raises(
        SplitError,
        match=r"1 image\(s\) have a near-duplicate, or one of their patient, in another part: y \(test\) and x",
    ):
        read_split(folder, twins, tmp_path)
    (folder / "split.json").write_text('{"protocol": "random"}')
    assert read_split(folder, twins, tmp_path).meta == {"protocol": "random"}


@pytest.mark.busi
def test_splits_of_the_real_busi_data(busi_index: Index, tmp_path: Path) -> None:
    split = make_split(busi_index.records, SplitConfig(), 0.25, 0)
    assert {name: len(records) for name, records in split.parts().items()} == {
        "labelled": 113,
        "unlabelled": 340,
        "validation": 65,
        "test": 129,
    }
    for records in split.parts().values():
        assert sum(r.class_name == "malignant" for r in records) / len(records) == pytest.approx(0.325, abs=0.02)
    write_split(split, busi_index.root, tmp_path / "split")
    assert read_split(tmp_path / "split", busi_index.records, busi_index.root).parts() == split.parts()
    random_split = make_split(busi_index.records, SplitConfig(protocol="random"), 0.25, 0)
    assert random_split.meta["twins_in_training"]["test"] > 15
