"""The halves of a test part, and the table of what adaptation gains."""

from __future__ import annotations

import pandas as pd
from benchmarks.adaptation import halves, table

from semidg.types import Record


def test_no_group_is_in_both_halves() -> None:
    records = [Record(f"{g}{k}", f"{g}{k}.png", (), "d", "", g, 4, 4) for g in "abcde" for k in range(3)]
    first, second = halves(records)
    assert {r.group for r in first} == {"a", "c", "e"}
    assert {r.group for r in second} == {"b", "d"}
    assert sorted(r.id for r in (*first, *second)) == [r.id for r in records]


def test_the_table_has_the_mean_over_the_domains_and_its_gain() -> None:
    rows = []
    for target, plain, gain, count in (("x", 0.5, 0.1, 8), ("y", 0.7, -0.02, 4)):
        for k in range(count):
            for model, value in (("plain", plain), ("adapted", plain + gain)):
                rows.append((f"{target}{k}", target, "", f"{target}{k}", value, value, model, "arm", target, 0))
    columns = ["id", "domain", "class", "group", "dice", "nsd", "model", "arm", "target", "seed"]
    (line,) = table(pd.DataFrame(rows, columns=columns)).splitlines()[2:]
    assert line == (
        "| arm | 0 | 12 | 50.0 to 60.0 | 70.0 to 68.0 | 60.0 to 64.0 | +4.0 (+4.0 to +4.0) | - | 60.0 to 64.0 |"
    )
