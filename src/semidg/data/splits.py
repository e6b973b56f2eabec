"""Division of a data set into labelled, unlabelled, validation and test part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

from semidg.data.draw import Group, Stratum, draw_groups, make_groups, stratum_sizes
from semidg.data.lists import PARTS, Split, count_parts, count_twins, read_split, write_split
from semidg.data.split_checks import refuse_target
from semidg.data_config import SplitConfig
from semidg.errors import SplitError
from semidg.types import Record

__all__ = ["PARTS", "Split", "make_split", "read_split", "write_split"]


def make_split(
    records: Sequence[Record], config: SplitConfig, labelled: float, seed: int, excluded: Sequence[str] = ()
) -> Split:
    """Divide ``records``; the same arguments give the same split, whatever the order of the records.

    Validation and test part hold images with a mask and depend on ``config`` alone. Of the training images with a
    mask, the part ``labelled`` (in (0, 1]) is drawn at random with ``seed``, whole groups, stratified by domain and
    class; all other training images are the unlabelled part. With ``config.target`` that domain is the test part, and
    a group with a member in it is in no other part; of it ``config.reserve`` is not in the test part either, which
    with ``config.oracle`` takes the place of all other domains. An image without a mask that belongs to a group in an
    evaluation part, or to the target, is in no part at all (``meta["left_out"]``). excluded: ids that the user has left
    out of ``records``, which are told there too.
    Raises SplitError if a part that was asked for would be empty, or a domain is unknown.
    """
    if not 0 < labelled <= 1:
        raise SplitError(f"labelled = {labelled:g}: must be above 0 and at most 1")
    if config.validation + (0 if config.target else config.test) >= 1:
        raise SplitError("data.split.validation + data.split.test must stay below 1; lower one of them")
    records = sorted(records, key=lambda record: record.id)
    doubled = [name for name, count in Counter(record.id for record in records).items() if count > 1]
    if doubled:
        raise SplitError(f"the id {doubled[0]!r} stands twice in the data; make the index again")
    if not any(record.labelled for record in records):
        raise SplitError("no image of the data has a mask, so the labelled part would be empty; add masks")

    left_out: dict[str, list[str]] = {"by the user": list(excluded)} if excluded else {}
    test: list[Record] = []
    if config.target is None:
        sources = list(records)
    else:
        sources, test = _hold_out(records, config, config.target, left_out)
    groups = make_groups(sources, together=config.protocol == "grouped")
    sizes = stratum_sizes(groups)
    if config.target is None:
        taken, groups = _take(groups, sizes, config, "test")
        test = _masked(taken, left_out)
    if config.protocol == "published":
        taken, training = [], groups
    else:
        taken, training = _take(groups, sizes, config, "validation")
    validation = _masked(taken, left_out)
    labelled_part, unlabelled = _labelled_draw(training, labelled, seed)

    split = Split(_sorted(labelled_part), _sorted(unlabelled), _sorted(validation), _sorted(test))
    if config.target is not None and not config.oracle:
        refuse_target(split.parts(), records, config.target, "the split")
    masked = sum(len(group.masked) for group in training)
    split.meta.update(
        protocol=config.protocol,
        target=config.target,
        oracle=config.oracle,
        seed=config.seed,
        labelled_seed=seed,
        similarity=config.similarity,
        fractions={"labelled": labelled, "validation": config.validation, "test": config.test},
        labelled_of_training=[len(labelled_part), masked],
        counts=count_parts(split),
        twins_in_training=count_twins(split),
        left_out={reason: sorted(ids) for reason, ids in left_out.items()},
    )
    return split


def _hold_out(
    records: Sequence[Record], config: SplitConfig, target: str, left_out: dict[str, list[str]]
) -> tuple[list[Record], list[Record]]:
    """(source records without twin in the target domain, target records with a mask); reserved ones are the sources of
    an oracle, and nothing otherwise."""
    domains = sorted({record.domain for record in records})
    if target not in domains:
        raise SplitError(f"data.split.target = {target!r}: unknown domain; the data has {', '.join(domains)}")
    touched = {record.group for record in records if record.domain == target}
    sources = [record for record in records if record.group not in touched]
    for record in records:
        if record.domain == target and not record.labelled:
            left_out.setdefault("target domain, without mask", []).append(record.id)
        elif record.domain != target and record.group in touched:
            left_out.setdefault("twin of a target image", []).append(record.id)
    test = [record for record in records if record.domain == target and record.labelled]
    if not test:
        raise SplitError(f"data.split.target = {target!r}: no image of that domain has a mask; name another domain")
    if config.reserve:
        groups = make_groups(test, together=config.protocol == "grouped")
        wanted = {name: config.reserve * size for name, size in stratum_sizes(groups).items()}
        chosen = draw_groups(groups, wanted, config.seed, "reserve")
        reserved = {record.id for group in groups if group.name in chosen for record in group.records}
        if not 0 < len(reserved) < len(test):
            raise SplitError(
                f"data.split.reserve = {config.reserve:g}: leaves {len(reserved)} of the {len(test)} images of "
                f"{target} to train on, the others to score; both need some"
            )
        if config.oracle:
            sources = [record for record in test if record.id in reserved]
            others = [r.id for r in records if r.domain != target and r.group not in touched]
            left_out.setdefault("other domain, of an oracle", []).extend(others)
        else:
            left_out.setdefault("target domain, reserved", []).extend(sorted(reserved))
        test = [record for record in test if record.id not in reserved]
    if not any(record.labelled for record in sources):
        raise SplitError(
            f"data.split.target = {target!r}: no image with a mask is left outside of it to train on; "
            f"name another domain (the data has {', '.join(domains)})"
        )
    return sources, test


def _take(
    groups: list[Group], sizes: dict[Stratum, int], config: SplitConfig, part: Literal["validation", "test"]
) -> tuple[list[Group], list[Group]]:
    """(groups of an evaluation part, with its fraction of each stratum; groups that remain)."""
    fraction = config.validation if part == "validation" else config.test
    if fraction == 0:
        return [], groups
    chosen = draw_groups(groups, {name: fraction * size for name, size in sizes.items()}, config.seed, part)
    if not chosen:
        raise SplitError(
            f"data.split.{part} = {fraction:g}: leaves no group of images for the {part} part "
            f"({sum(sizes.values())} images with a mask in {len(groups)} groups); raise it, or set it to 0"
        )
    return [group for group in groups if group.name in chosen], [g for g in groups if g.name not in chosen]


def _masked(groups: Iterable[Group], left_out: dict[str, list[str]]) -> list[Record]:
    """The records of evaluation groups that have a mask; the others are noted in ``left_out``."""
    for record in _records(groups):
        if not record.labelled:
            left_out.setdefault("without mask, twin of an evaluation image", []).append(record.id)
    return [record for group in groups for record in group.masked]


def _labelled_draw(training: list[Group], fraction: float, seed: int) -> tuple[list[Record], list[Record]]:
    """(labelled records, unlabelled records) of the training groups."""
    sizes = stratum_sizes(training)
    total = sum(sizes.values())
    if total == 0:
        raise SplitError(
            "no training image with a mask is left beside the validation and test part; "
            "lower data.split.validation or data.split.test, or add images"
        )
    chosen = draw_groups(training, {name: fraction * size for name, size in sizes.items()}, seed, "labelled")
    if not chosen:
        raise SplitError(
            f"labelled = {fraction:g}: leaves no group of the {total} training images with a mask; "
            f"raise it to {min(1.0, 1 / total):.2g} or more"
        )
    ids = {record.id for group in training if group.name in chosen for record in group.masked}
    everything = _records(training)
    return [r for r in everything if r.id in ids], [r for r in everything if r.id not in ids]


def _records(groups: Iterable[Group]) -> list[Record]:
    return [record for group in groups for record in group.records]


def _sorted(records: Iterable[Record]) -> tuple[Record, ...]:
    return tuple(sorted(records, key=lambda record: record.id))
