"""Stratified, seeded draws of whole groups of images."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from semidg.types import Record

Stratum = tuple[str, str]  # (domain, class)

_EXACT = 4096  # images up to which the nearest possible sum is searched for exactly


@dataclass(frozen=True)
class Group:
    """Images that stay together. ``stratum`` is the most frequent (domain, class) among them."""

    name: str
    stratum: Stratum
    records: tuple[Record, ...]

    @property
    def masked(self) -> tuple[Record, ...]:
        """The records with a mask: those that a draw counts."""
        return tuple(record for record in self.records if record.labelled)


def make_groups(records: Iterable[Record], together: bool = True) -> list[Group]:
    """One Group for each ``Record.group``, or, with together = False, one for each record."""
    members: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        members[record.group if together else record.id].append(record)
    return [Group(name, _stratum(found), tuple(found)) for name, found in sorted(members.items())]


def stratum_sizes(groups: Iterable[Group]) -> dict[Stratum, int]:
    """Number of images with a mask in each stratum."""
    sizes: Counter[Stratum] = Counter()
    for group in groups:
        sizes[group.stratum] += len(group.masked)
    return dict(sizes)


def draw_groups(groups: Sequence[Group], wanted: Mapping[Stratum, float], seed: int, purpose: str) -> set[str]:
    """Names of groups that together hold about ``wanted[stratum]`` images with a mask of each stratum.

    Within a stratum the groups come in a random order, and the first of them are taken as far as the nearest possible
    number of images allows. What one stratum has too many, the next has fewer, so that the total is near the sum of
    ``wanted``; the strata with the fewest single images come first, so that the last one can make up for them.
    The order is that of SHA-256(seed, purpose, group name): the same on every machine and under every version of a
    library, and each ``purpose`` has its own.
    """
    strata: dict[Stratum, list[Group]] = defaultdict(list)
    for group in groups:
        if group.masked:
            strata[group.stratum].append(group)
    chosen: set[str] = set()
    missing = 0.0
    for stratum in sorted(strata, key=lambda s: (sum(len(g.masked) == 1 for g in strata[s]), s)):
        ordered = sorted(strata[stratum], key=lambda g: _random_key(seed, purpose, g.name))
        sizes = [len(group.masked) for group in ordered]
        missing += wanted.get(stratum, 0.0)
        for group, size, take in zip(ordered, sizes, nearest_sum(sizes, missing), strict=True):
            if take:
                chosen.add(group.name)
                missing -= size
    return chosen


def nearest_sum(sizes: Sequence[int], target: float) -> list[bool]:
    """Which of the positive ``sizes``, the first before the later ones, add up as near as possible to ``target``.

    Of two sums equally near the larger one is taken. Exact up to a target of 4096; beyond that the first sizes are
    taken unconditionally until 4096 are left to find.
    """
    taken = [False] * len(sizes)
    if not sizes or target <= 0:
        return taken
    start, left, largest = 0, target, max(sizes)
    while start < len(sizes) and left > _EXACT + largest:
        taken[start] = True
        left -= sizes[start]
        start += 1
    limit = math.ceil(left) + largest
    window = (1 << (limit + 1)) - 1
    reachable = [1]  # bit t of reachable[i], once reversed: sizes[i:] can add up to t
    for size in reversed(sizes[start:]):
        reachable.append((reachable[-1] | reachable[-1] << size) & window)
    reachable.reverse()
    sums = (total for total in range(limit + 1) if reachable[0] >> total & 1)
    rest = min(sums, key=lambda total: (abs(total - left), -total))
    for number, size in enumerate(sizes[start:], start=1):
        if rest >= size and reachable[number] >> (rest - size) & 1:
            taken[start + number - 1] = True
            rest -= size
    return taken


def _stratum(records: Sequence[Record]) -> Stratum:
    counts = Counter((record.domain, record.class_name) for record in records)
    return min(counts, key=lambda stratum: (-counts[stratum], stratum))


def _random_key(seed: int, purpose: str, name: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{purpose}\0{name}".encode("utf-8", "surrogatepass")).digest()
