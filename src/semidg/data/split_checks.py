"""What no split may do: divide a group, or let training see the domain that is held out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from semidg.data.paths import printable
from semidg.errors import SplitError
from semidg.types import Record

#: The records of the parts labelled, unlabelled, validation and test.
Parts = Mapping[str, Sequence[Record]]


def refuse_divided_groups(parts: Parts, where: str) -> None:
    """Raise SplitError if images of one group stand on both sides of training, validation and test part.

    ``where`` begins the message.
    """
    sides = {
        "training": (*parts["labelled"], *parts["unlabelled"]),
        "validation": parts["validation"],
        "test": parts["test"],
    }
    owner: dict[str, tuple[str, Record]] = {}
    twins: list[str] = []
    for side, records in sides.items():
        for record in records:
            other = owner.setdefault(record.group, (side, record))
            if other[0] != side:
                twins.append(f"{printable(record.id)} ({side}) and {printable(other[1].id)} ({other[0]})")
    if twins:
        raise SplitError(
            f"{where}: {len(twins)} image(s) have a near-duplicate, or one of their patient, in another part: "
            f"{'; '.join(twins[:5])}{'; ...' if len(twins) > 5 else ''}. Move them to one part, or, for lists that "
            'were published so, write {"protocol": "random"} into split.json'
        )


def refuse_target(parts: Parts, records: Sequence[Record], target: str, where: str) -> None:
    """Raise SplitError if the held-out domain is not kept apart.

    Refused, whatever the protocol: an image of the target, or one of the group of such an image, in the labelled, the
    unlabelled or the validation part; an image of another domain in the test part. ``records`` are those of the whole
    data set, so that a twin counts whether its target image is in a part or not. ``where`` begins the message.
    """
    domains = sorted({record.domain for record in records})
    if target not in domains:
        raise SplitError(f"{where}: the held-out domain {target!r} is unknown; the data has {', '.join(domains)}")
    owner: dict[str, str] = {}
    for record in records:
        if record.domain == target:
            owner.setdefault(record.group, record.id)
    wrong: list[str] = []
    for part, found in parts.items():
        for record in found:
            name = f"{printable(record.id)} ({part})"
            if part == "test":
                if record.domain != target:
                    wrong.append(f"{name}: of the domain {printable(record.domain)}")
            elif record.domain == target:
                wrong.append(f"{name}: of the held-out domain")
            elif record.group in owner:
                wrong.append(f"{name}: in one group with {printable(owner[record.group])} of the held-out domain")
    if wrong:
        raise SplitError(
            f"{where}: {len(wrong)} image(s) do not keep the domain {printable(target)} apart: {'; '.join(wrong[:5])}"
            f"{'; ...' if len(wrong) > 5 else ''}. Take these lines out, or leave data.split.target out"
        )
