"""Twins against a comparison of every pair."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit_support import square, texture
from semidg.experiment.audit import twins
from semidg.experiment.audit.cases import SIDE, Case
from semidg.experiment.audit.twins import LEAST_DICE, dice_matrix, find_twins
from semidg.types import Record


def case(number: int, looks: int, class_name: str = "", domain: str = "a", side: int | None = 40) -> Case:
    """One of the images ``looks``, in another light and with a little noise of its own."""
    noise = np.random.default_rng(number).normal(0, 1 + number % 9, (64, 64))
    thumbnail = np.clip(texture(looks, 64, 64) + 20 + noise, 0, 255).astype(np.uint8)
    mask = None if side is None else square(20, 20, side, SIDE, SIDE) // 255
    record = Record(f"{number}", f"{number}.png", ("m",) if side else (), domain, class_name, "", 9, 9)
    return Case(record, thumbnail, np.zeros(256), np.zeros((5, 3)), mask, 0.1, b"", None)


def dice_of(one: Case, other: Case) -> float:
    assert one.mask is not None
    assert other.mask is not None
    a, b = {*np.flatnonzero(one.mask)}, {*np.flatnonzero(other.mask)}
    return 2 * len(a & b) / (len(a) + len(b)) if a or b else 1.0


@pytest.mark.parametrize("block", [256, 3])
@given(st.integers(0, 1000))
@settings(max_examples=12)
def test_every_contradiction_is_listed_and_nothing_else(block: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    cases = [
        case(k, int(rng.integers(3)), "xyz"[rng.integers(3)], "ab"[rng.integers(2)], (None, 0, 20, 40)[rng.integers(4)])
        for k in range(12)
    ]
    parts = {f"{k}.png": ("labelled", "unlabelled", "test", "validation", "")[rng.integers(5)] for k in range(12)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(twins, "_BLOCK", block)
        groups, issues = find_twins(cases, 0.95, parts)

    wrong: dict[str, set[tuple[str, str]]] = {}
    for i in range(12):
        for j in range(i + 1, 12):
            a, b = cases[i], cases[j]
            if np.corrcoef(a.thumbnail.ravel(), b.thumbnail.ravel())[0, 1] <= 0.95:
                continue
            assert groups[i] == groups[j]
            sides = [twins.SIDES.get(parts[c.record.image], "") for c in (a, b)]
            kinds = {
                "twins of different classes": a.record.class_name != b.record.class_name,
                "twins across the split": all(sides) and sides[0] != sides[1],
            }
            kinds["twins of different domains"] = (
                a.record.domain != b.record.domain and not kinds["twins of different classes"]
            )
            plain = not any(kinds.values())
            kinds["near-duplicate"] = plain
            kinds["twins with different masks"] = (
                a.mask is not None and b.mask is not None and dice_of(a, b) < LEAST_DICE
            )
            for kind, true in kinds.items():
                if true:
                    wrong.setdefault(kind, set()).add((a.record.id, b.record.id))
    listed: dict[str, set[tuple[str, str]]] = {}
    for issue in issues:
        assert (issue.id, issue.other) not in listed.setdefault(issue.kind, set()), "told twice"
        listed[issue.kind].add((issue.id, issue.other))
    assert set(listed) == set(wrong)
    for kind, pairs in wrong.items():
        assert listed[kind] <= pairs
        assert {name for pair in listed[kind] for name in pair} == {name for pair in pairs for name in pair}


@given(st.integers(0, 100), st.integers(1, 5), st.integers(1, 5))
@settings(max_examples=30)
def test_dice_is_that_of_sets(seed: int, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    left, right = rng.random((n, 7)) < 0.3, rng.random((m, 7)) < 0.3
    for i, row in enumerate(dice_matrix(left, right)):
        for j, value in enumerate(row):
            a, b = {*np.flatnonzero(left[i])}, {*np.flatnonzero(right[j])}
            assert value == pytest.approx(2 * len(a & b) / (len(a) + len(b)) if a or b else 1.0)


def test_what_is_said_of_two_twins() -> None:
    one, other = case(0, 5, "benign", "benign"), case(9, 5, "malignant", "malignant", 10)
    _, issues = find_twins([one, other], 0.9, {})
    assert {issue.kind for issue in issues} == {"twins of different classes", "twins with different masks"}
    of_class, of_mask = issues
    assert of_class.explanation.endswith("classes benign and malignant; Dice of the masks 0.12")
    assert of_class.value == pytest.approx(np.corrcoef(one.thumbnail.ravel(), other.thumbnail.ravel())[0, 1], abs=1e-5)
    assert of_mask.value == pytest.approx(2 * 100 / 1700)
    assert "limit 0.7" in of_mask.explanation
    assert [(i.id, i.other, i.file) for i in issues] == [("0", "9", "0.png")] * 2


def test_planes_of_one_file_are_no_twins_and_constant_images_are() -> None:
    cases = [case(0, 1), case(9, 1)]
    film = [replace(c, record=replace(c.record, image="film.dcm")) for c in cases]
    assert [i.kind for i in find_twins(cases, 0.95, {})[1]] == ["near-duplicate"]
    assert find_twins(film, 0.95, {})[1] == []
    black = [replace(c, thumbnail=np.zeros((64, 64), np.uint8)) for c in cases]
    assert [(i.kind, i.value) for i in find_twins(black, 0.95, {})[1]] == [("near-duplicate", 1.0)]
    assert find_twins([], 0.95, {})[1] == []
