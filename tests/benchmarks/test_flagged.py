"""Lists without the flagged training masks: what stays, what goes, and that nothing else moves."""

from __future__ import annotations

from collections import Counter

import numpy as np
from benchmarks.flagged import at_random, lowest, without

from semidg.data.lists import Split
from semidg.experiment.label_quality import Quality
from semidg.types import Record


def record(name: str, kind: str) -> Record:
    return Record(
        id=name,
        image=f"{name}.png",
        masks=(f"{name}_mask.png",),
        domain="d",
        class_name=kind,
        group=name,
        width=8,
        height=8,
    )


RECORDS = tuple(record(f"{kind}-{k:02}", kind) for kind in ("benign", "malignant") for k in range(10))
SPLIT = Split(RECORDS[:14], (), RECORDS[14:16], RECORDS[16:], {"left_out": {}, "counts": {}})


def test_the_lowest_share_is_taken_and_ties_go_by_name() -> None:
    blank = np.zeros((1, 1), np.uint8)
    scores = [Quality(r.id, score, blank, "") for r, score in zip(RECORDS, [0.5, 0.1, 0.1, *[0.9] * 17], strict=True)]
    assert lowest(scores, 0.1) == {"benign-01", "benign-02"}
    assert lowest(scores, 0.05) == {"benign-01"}


def test_chance_draws_as_many_of_each_class_from_the_training_part_and_the_same_again() -> None:
    flagged = ["benign-01", "benign-02", "malignant-03"]
    drawn = at_random(SPLIT.labelled, flagged, seed=0)
    assert Counter(name.split("-")[0] for name in drawn) == {"benign": 2, "malignant": 1}
    assert set(drawn) <= {r.id for r in SPLIT.labelled}
    assert len(set(drawn)) == 3
    assert drawn == at_random(SPLIT.labelled[::-1], flagged, seed=0)
    assert any(drawn != at_random(SPLIT.labelled, flagged, seed=k) for k in range(1, 5))


def test_flagged_masks_leave_the_labelled_part_and_nothing_else_moves() -> None:
    out = {"benign-01", "malignant-03"}
    for kept in (False, True):
        rest = without(SPLIT, out, kept)
        assert {r.id for r in SPLIT.labelled} - {r.id for r in rest.labelled} == out
        assert {r.id for r in rest.unlabelled} == (out if kept else set())
        assert (rest.validation, rest.test) == (SPLIT.validation, SPLIT.test)
        assert rest.meta["counts"]["labelled"]["images"] == 12
        assert rest.meta["left_out"].get("flagged") == (None if kept else sorted(out))
