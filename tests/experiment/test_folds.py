"""Folds: whole groups, every mask once; trainings that go on after a kill and refuse what is not theirs."""

from __future__ import annotations

import shutil
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from killed import exit_code, score_until_the_second_fold
from semidg.config import ExperimentConfig
from semidg.data.index import Index, build_index
from semidg.errors import ConfigError, RunError, SplitError
from semidg.experiment.folds import fold_config, fold_splits, make_folds
from semidg.experiment.label_quality import Quality, score_by_folds
from semidg.types import Record
from tests_support import tiny_config

CPU = torch.device("cpu")


def record(number: int, group: int, domain: str, masked: bool) -> Record:
    masks = (f"{domain}/masks/{number}.png",) if masked else ()
    return Record(str(number), f"{domain}/images/{number}.png", masks, domain, "", f"g{group}", 8, 8)


@st.composite
def data_sets(draw: st.DrawFn) -> list[Record]:
    rows = draw(st.lists(st.tuples(st.integers(0, 12), st.sampled_from("ab"), st.booleans()), min_size=1, max_size=40))
    return [record(number, *row) for number, row in enumerate(rows)]


@given(records=data_sets(), folds=st.integers(2, 5), seed=st.integers(0, 3), data=st.data())
def test_twins_stay_together_and_each_mask_is_in_one_fold(
    records: list[Record], folds: int, seed: int, data: st.DataObject
) -> None:
    groups = {r.group for r in records if r.labelled}
    if len(groups) < folds:
        with pytest.raises(SplitError, match="fewer folds"):
            make_folds(records, folds, seed)
        return
    parts = make_folds(records, folds, seed)
    assert len(parts) == folds
    assert all(any(r.labelled for r in part) for part in parts)
    placed = Counter(r.id for part in parts for r in part)
    assert set(placed) == {r.id for r in records if r.group in groups}
    assert set(placed.values()) == {1}
    for group in groups:
        assert sum(any(r.group == group for r in part) for part in parts) == 1
    assert make_folds(data.draw(st.permutations(records)), folds, seed) == parts


@given(counts=st.lists(st.integers(1, 30), min_size=1, max_size=4), folds=st.integers(2, 5), seed=st.integers(0, 9))
def test_folds_have_as_many_of_each_stratum(counts: list[int], folds: int, seed: int) -> None:
    if sum(counts) < folds:
        return
    names = [name for name, count in zip("abcd", counts, strict=False) for _ in range(count)]
    parts = make_folds([record(k, k, name, True) for k, name in enumerate(names)], folds, seed)
    for name in set(names):
        sizes = [sum(r.domain == name for r in part) for part in parts]
        assert max(sizes) - min(sizes) <= 1


def test_another_seed_divides_otherwise() -> None:
    records = [record(k, k, "a", True) for k in range(30)]
    assert make_folds(records, 3, 0) != make_folds(records, 3, 1)
    with pytest.raises(ConfigError, match="at least 2"):
        make_folds(records, 1, 0)


@pytest.fixture(scope="module")
def index(phantom: Path) -> Index:
    """The phantom with a pair of twins, of which one has no mask."""
    whole = build_index(phantom)
    first, second, *rest = whole.records
    return replace(whole, records=(first, replace(second, masks=(), group=first.group), *rest))


def config_of(phantom: Path) -> ExperimentConfig:
    return tiny_config(phantom, method={"name": "supervised", "networks": 1})


def test_a_fold_trains_on_everything_outside_it(index: Index, phantom: Path) -> None:
    splits = fold_splits(config_of(phantom), index, 3)
    scored = [r.id for split in splits for r in split.test]
    assert sorted(scored) == sorted(r.id for r in index.records if r.labelled)
    first, bare, *_ = index.records
    for split in splits:
        training = {*split.labelled, *split.unlabelled, *split.validation}
        assert {r.group for r in training}.isdisjoint(r.group for r in split.test)
        assert all(r.labelled for r in split.labelled)
        assert split.validation
        if first in split.test:
            assert bare not in training
        elif first in split.labelled:
            assert bare in split.unlabelled
        assert len(training) + len(split.test) == len(index.records) - (bare not in training)


@pytest.fixture(scope="module")
def whole(index: Index, phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Quality]]:
    out = tmp_path_factory.mktemp("folds") / "out"
    return out, score_by_folds(config_of(phantom), index, 2, out, CPU)


def test_every_mask_is_scored_by_the_fold_that_did_not_see_it(
    whole: tuple[Path, list[Quality]], index: Index, phantom: Path
) -> None:
    _, found = whole
    assert [quality.id for quality in found] == [r.id for r in index.records if r.labelled]
    fold = {r.id: f"fold {k}" for k, s in enumerate(fold_splits(config_of(phantom), index, 2), 1) for r in s.test}
    assert {quality.id: quality.source for quality in found} == fold


def test_finished_folds_are_not_trained_again(whole: tuple[Path, list[Quality]], index: Index, phantom: Path) -> None:
    out, found = whole
    times = [p.stat().st_mtime_ns for p in sorted(out.glob("fold-*/checkpoints/last.pt"))]
    again = score_by_folds(config_of(phantom), index, 2, out, CPU)
    assert [(q.id, q.score) for q in again] == [(q.id, q.score) for q in found]
    assert [p.stat().st_mtime_ns for p in sorted(out.glob("fold-*/checkpoints/last.pt"))] == times


def test_a_killed_audit_goes_on_and_scores_the_same(
    whole: tuple[Path, list[Quality]], index: Index, phantom: Path, tmp_path: Path
) -> None:
    config, out = config_of(phantom), tmp_path / "killed"
    assert exit_code(score_until_the_second_fold, config, index, out) == -signal.SIGKILL
    assert (out / "fold-1" / "model" / "model.safetensors").is_file()
    assert not (out / "fold-2" / "model").exists()
    steps: list[tuple[str, int]] = []
    threads = torch.get_num_threads()
    try:
        found = score_by_folds(config, index, 2, out, CPU, lambda what, done, _: steps.append((what, done)))
    finally:
        torch.set_num_threads(threads)
    assert ("training fold 2 of 2", 2) in steps  # from its last checkpoint
    assert not any(what.startswith("training fold 1") for what, _ in steps)
    assert [(q.id, q.score) for q in found] == [(q.id, q.score) for q in whole[1]]
    assert not list(out.rglob("*.new"))


def test_other_data_other_folds_and_other_files_are_refused(
    whole: tuple[Path, list[Quality]], index: Index, phantom: Path, tmp_path: Path
) -> None:
    out, config = whole[0], config_of(phantom)
    for other, folds in ((replace(index, records=index.records[:-1]), 2), (index, 3)):
        with pytest.raises(RunError, match=r"fold-1.*other images"):
            score_by_folds(config, other, folds, out, CPU)
    with pytest.raises(RunError, match="another configuration"):
        score_by_folds(config.model_copy(update={"seed": 9, "data": config.data}), index, 2, out, CPU)
    (tmp_path / "fold-1").mkdir()
    (tmp_path / "fold-1" / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match=r"fold-1: is no run folder"):
        score_by_folds(config, index, 2, tmp_path, CPU)
    assert [p.name for p in tmp_path.rglob("*")] == ["fold-1", "notes.txt"]


def test_a_wrong_configuration_does_not_hold_the_place(index: Index, phantom: Path, tmp_path: Path) -> None:
    wrong = tiny_config(phantom, network={"encoder": "resnet_18", "weights": "none"})
    with pytest.raises(ConfigError, match="resnet_18"):
        score_by_folds(wrong, index, 2, tmp_path / "out", CPU)
    assert list((tmp_path / "out").iterdir()) == []


def test_folds_of_several_roots_read_the_folder_above_them(phantom: Path, tmp_path: Path) -> None:
    other = shutil.copytree(phantom, tmp_path / "other")
    config = config_of(phantom)
    config = config.model_copy(update={"data": config.data.model_copy(update={"more_roots": (other,)})})
    alone = fold_config(config, build_index(phantom, more_roots=[other]))
    assert alone.data.more_roots == ()
    assert alone.data.root is not None
    assert phantom.is_relative_to(alone.data.root)
    assert other.is_relative_to(alone.data.root)
