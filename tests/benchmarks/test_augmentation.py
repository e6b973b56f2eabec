"""The tables of what test-time augmentation gains."""

from __future__ import annotations

import pandas as pd
from benchmarks.augmentation import against, more_labels, table, with_auto

COLUMNS = ["arm", "labelled", "target", "seed", "part", "augmentation", "id", "group", "dice", "nsd", "hd95"]


def cases() -> pd.DataFrame:
    """Two arms of two seeds on two domains; validation chooses scales for seed 0, and mirror for seed 1."""
    rows = []
    for arm, level in (("supervised", 0.5), ("fixmatch", 0.6)):
        for seed in (0, 1):
            for target, count in (("x", 8), ("y", 4)):
                for part in ("validation", "test"):
                    mirror, scales = ((0.01, 0.02), (0.03, 0.02))[seed]
                    if part == "test":
                        mirror, scales = 0.05, -0.02
                    for name, gain in (("none", 0.0), ("mirror", mirror), ("scales", scales)):
                        for k in range(count):
                            dice = level + gain
                            id_ = f"{part} {target}{k}"
                            rows.append(
                                (arm, 0.25, target, seed, part, name, id_, id_, dice, dice / 2, 100 * (1 - dice))
                            )
    return pd.DataFrame(rows, columns=COLUMNS).assign(domain="d", **{"class": ""})


def test_auto_is_chosen_on_the_validation_part_of_each_run() -> None:
    found = with_auto(cases())
    auto = found[found["augmentation"] == "auto"]
    assert set(found["part"]) == {"test"}
    assert len(auto) == 2 * 2 * 12
    assert set(auto[auto["seed"] == 0]["chosen"]) == {"scales"}
    assert set(auto[auto["seed"] == 1]["chosen"]) == {"mirror"}


def test_of_equal_ones_the_quickest_is_chosen() -> None:
    equal = cases().assign(dice=0.5)
    found = with_auto(equal)
    assert set(found[found["augmentation"] == "auto"]["chosen"]) == {"none"}


def test_the_table_holds_every_augmentation_and_the_gain_of_the_last() -> None:
    head, _, fixmatch, supervised = table(with_auto(cases()), "auto").splitlines()
    assert head.startswith("| labelled | arm | seeds | n | none | mirror | scales | auto | auto minus none |")
    # auto: -2 in seed 0 and +5 in seed 1
    assert fixmatch.startswith("| 25 % | fixmatch | 0, 1 | 12 | 60.0 | 65.0 | 58.0 | 61.5 | +1.5 (+1.5 to +1.5) | ")
    assert supervised.endswith("| 25.0 to 25.8 | 50 to 48 |")


def test_arms_are_compared_with_the_same_augmentation() -> None:
    (line,) = against(with_auto(cases()), "supervised").splitlines()[2:]
    assert line.startswith("| 25 % | fixmatch | 0, 1 | +10.0 (+10.0 to +10.0) | +10.0 (+10.0 to +10.0) |")
    assert line.endswith("| +5.0 (+5.0 to +5.0) | +5.0 (+5.0 to +5.0) |")


def test_the_largest_part_of_the_labels_is_compared_with_the_others_of_the_same_arm() -> None:
    less, more = cases(), cases()
    more = more[(more["arm"] == "supervised") & (more["seed"] == 0)].assign(labelled=1.0)
    more["dice"] += 0.07
    (line,) = more_labels(with_auto(pd.concat([less, more]))).splitlines()[2:]
    assert line.startswith("| supervised | 100 % minus 25 % | 0 | +7.0 (+7.0 to +7.0) | +7.0 (+7.0 to +7.0) | - |")
