"""Images that look the same, and where their labels contradict each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from semidg.data.duplicates import twin_groups
from semidg.experiment.audit.cases import SIDE, Case
from semidg.experiment.audit.issues import Issue

#: Masks of twins with a Dice below this do not agree.
LEAST_DICE = 0.7

_BLOCK = 256  # members of a group that are compared with all others at once

#: Part of a split -> side of it; twins may lie in two parts of one side.
SIDES = {"labelled": "training", "unlabelled": "training", "validation": "validation", "test": "test"}

Values = NDArray[np.float32]


def find_twins(
    cases: Sequence[Case], similarity: float, parts: Mapping[str, str]
) -> tuple[NDArray[np.int64], list[Issue]]:
    """(group of each case, issues). parts: image file, or FILE#PLANE -> part of a split.

    Twins are images of one group (``duplicates.twin_groups``), of two files, with a correlation above ``similarity``:
    planes of two volumes only where one volume is a copy of the other. Of each image and kind one twin is told, the
    most similar or, for masks, the least agreeing, so that every image with a contradiction is listed, while a
    thousand like frames do not give a million pairs.
    """
    if not cases:
        return np.zeros(0, np.int64), []
    thumbnails = np.stack([case.thumbnail for case in cases])
    groups = twin_groups([case.record for case in cases], thumbnails, similarity)
    issues: list[Issue] = []
    order = np.argsort(groups, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
        if len(members) > 1:
            issues += _of_group([cases[k] for k in members], similarity, parts)
    return groups, issues


def dice_matrix(left: NDArray[np.bool_], right: NDArray[np.bool_]) -> Values:
    """Dice of each of n masks (n, P) with each of m masks (m, P): (n, m); 1 where both are empty."""
    shared = left.astype(np.float32) @ right.astype(np.float32).T
    total = left.sum(1, dtype=np.float32)[:, None] + right.sum(1, dtype=np.float32)[None, :]
    dice: Values = np.where(total > 0, 2 * shared / np.maximum(total, 1), 1).astype(np.float32)
    return dice


def _of_group(cases: Sequence[Case], similarity: float, parts: Mapping[str, str]) -> Iterator[Issue]:
    count = len(cases)
    flat = _standardised(cases)
    marked = np.stack([np.zeros(SIDE * SIDE, bool) if c.mask is None else c.mask.ravel() > 0 for c in cases])
    masked = np.array([case.mask is not None for case in cases])
    files = _codes([case.record.file for case in cases])
    classes = _codes([case.record.class_name for case in cases])
    domains = _codes([case.record.domain for case in cases])
    sides = _codes([SIDES.get(_part(case, parts), "") for case in cases])
    told: set[tuple[str, int, int]] = set()
    for start in range(0, count, _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, count))
        r = flat[rows] @ flat.T if flat.any() else np.ones((len(rows), count), np.float32)  # constant images: no r
        dice = np.concatenate([dice_matrix(marked[rows], marked[k : k + 1024]) for k in range(0, count, 1024)], axis=1)
        twins = (r > similarity) & (files[rows, None] != files)
        of_class = twins & _differ(classes, rows)
        of_side = twins & _differ(sides, rows)
        of_domain = twins & _differ(domains, rows) & ~of_class
        of_mask = twins & masked[rows, None] & masked & (dice < LEAST_DICE)
        plain = twins & ~(of_class | of_side | of_domain)
        for kind, allowed, score in (
            ("twins of different classes", of_class, r),
            ("twins across the split", of_side, r),
            ("twins of different domains", of_domain, r),
            ("twins with different masks", of_mask, -dice),
            ("near-duplicate", plain, r),
        ):
            best = np.argmax(np.where(allowed, score, -np.inf), axis=1)
            for row in np.flatnonzero(allowed.any(axis=1)):
                one, other = sorted((int(rows[row]), int(best[row])))
                if (kind, one, other) not in told:
                    told.add((kind, one, other))
                    both = bool(masked[one] and masked[other])
                    agreement = float(dice[row, best[row]]) if both else None
                    yield _issue(kind, cases[one], cases[other], min(1.0, float(r[row, best[row]])), agreement, parts)


def _issue(kind: str, one: Case, other: Case, r: float, dice: float | None, parts: Mapping[str, str]) -> Issue:
    said = [f"correlation {r:.3f}"]
    for name, a, b in (
        ("classes", one.record.class_name, other.record.class_name),
        ("domains", one.record.domain, other.record.domain),
        ("parts", _part(one, parts), _part(other, parts)),
    ):
        if a != b and not (name == "domains" and a == one.record.class_name and b == other.record.class_name):
            said.append(f"{name} {a or 'none'} and {b or 'none'}")
    if dice is not None:
        limit = f" (limit {LEAST_DICE:g})" if kind == "twins with different masks" else ""
        said.append(f"Dice of the masks {dice:.2f}{limit}")
    value = dice if kind == "twins with different masks" else r
    return Issue(one.record.id, one.record.image, kind, "; ".join(said), value, other.record.id)


def _part(case: Case, parts: Mapping[str, str]) -> str:
    """Part of the split that an image, or a plane of a file, stands in; empty if in none."""
    record = case.record
    return parts.get(f"{record.image}#{record.frame}") or parts.get(record.image, "")


def _standardised(cases: Sequence[Case]) -> Values:
    """Thumbnails (n, 64 * 64) with mean 0 and norm 1; constant ones are 0."""
    flat = np.stack([case.thumbnail for case in cases]).reshape(len(cases), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(flat, axis=1, keepdims=True)
    flat /= np.where(norm == 0, 1, norm)
    return flat


def _codes(names: Sequence[str]) -> NDArray[np.int64]:
    """One number a name, -1 for the empty one."""
    known = {name: number for number, name in enumerate(sorted({*names} - {""}))}
    return np.array([known.get(name, -1) for name in names])


def _differ(codes: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(rows, all): both have a name, and not the same."""
    own = codes[rows, None]
    differ: NDArray[np.bool_] = (own != codes) & (own >= 0) & (codes >= 0)
    return differ
