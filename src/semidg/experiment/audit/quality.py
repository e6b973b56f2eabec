"""Masks that networks did not expect: the scores of label_quality as issues and as quality.csv."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from semidg.experiment.audit.audit import Audit
from semidg.experiment.audit.issues import Issue, ranked
from semidg.experiment.label_quality import Quality
from semidg.files import atomic_path

#: The masks that become issues: of the scores, the lowest twentieth (rounded up), as far as they are below one half.
WORST_PART, HIGHEST_SCORE = 0.05, 0.5

#: Columns of quality.csv, which has a row a scored mask, the least expected first.
QUALITY_COLUMNS = ("id", "domain", "class", "score", "source", "issue")


def worst(scores: Sequence[Quality]) -> list[Quality]:
    """Those that become issues, the lowest first."""
    lowest = sorted(scores, key=lambda q: (q.score, q.id))[: math.ceil(WORST_PART * len(scores))]
    return [quality for quality in lowest if quality.score < HIGHEST_SCORE]


def with_quality(audit: Audit, scores: Sequence[Quality]) -> Audit:
    """The audit with an issue "mask unlike its prediction" for each of the worst scores."""
    issues = []
    for quality in worst(scores):
        text = f"agreement {quality.score:.2f} with networks that did not learn this mask ({quality.source})"
        file = audit.cases[quality.id].record.masks[0]
        issues.append(Issue(quality.id, file, "mask unlike its prediction", text, quality.score))
    predicted = {quality.id: quality.predicted for quality in worst(scores)}
    return replace(audit, issues=ranked([*audit.issues, *issues]), predicted=predicted)


def write_quality(audit: Audit, scores: Sequence[Quality], path: Path) -> None:
    """Write quality.csv (docs/reference/data-formats.md), complete or not at all."""
    listed = {quality.id for quality in worst(scores)}
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(QUALITY_COLUMNS)
        for quality in sorted(scores, key=lambda q: (q.score, q.id)):
            record = audit.cases[quality.id].record
            issue = "yes" if quality.id in listed else ""
            writer.writerow(
                (quality.id, record.domain, record.class_name, f"{quality.score:.6f}", quality.source, issue)
            )
