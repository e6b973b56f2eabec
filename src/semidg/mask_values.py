"""What the values of mask files mean, where they are not class numbers: ``0:2,128:1,255:0``."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from semidg.types import IGNORE_INDEX

_NUMBER = r"-?\d+(?:\.\d+)?"
_RULE = re.compile(
    rf"(?:(?P<others>\*)|\#(?P<colour>[0-9a-fA-F]{{6}})|(?P<low>{_NUMBER})(?:-(?P<high>{_NUMBER}))?)"
    r"\s*:\s*(?P<number>\d{1,3}|ignore)",
    re.ASCII,
)
_WANTED = "VALUE:CLASS, LOW-HIGH:CLASS, #rrggbb:CLASS or *:CLASS, where CLASS is a class number or ignore"


class MaskValues(NamedTuple):
    """Rules by which values become class numbers.

    rules: (lowest value, highest value, class number), both ends within; the first that fits is taken. others: class
    number of all other values; None if there may be none. IGNORE_INDEX stands for pixels that are not known. colours:
    the values are colours, as numbers of 24 bits.
    """

    rules: tuple[tuple[float, float, int], ...]
    others: int | None
    colours: bool

    @property
    def numbers(self) -> frozenset[int]:
        """All class numbers of the rules, IGNORE_INDEX among them where it is one."""
        return frozenset(number for *_, number in self.rules) | ({self.others} if self.others is not None else set())

    def find(self, values: NDArray[np.generic]) -> NDArray[np.int64]:
        """The class number of each value, in any shape, -1 where no rule fits or a value is not finite."""
        real = values.astype(float)
        found = np.full(real.shape, -1 if self.others is None else self.others, dtype=np.int64)
        for low, high, number in reversed(self.rules):
            found[(real >= low) & (real <= high)] = number
        found[~np.isfinite(real)] = -1
        return found


@lru_cache
def parse_mask_values(text: str) -> MaskValues:
    """The rules that ``text`` names, divided by commas; raises ValueError that says what is wrong."""
    rules: list[tuple[float, float, int]] = []
    others: int | None = None
    kinds: set[bool] = set()
    for part in text.split(","):
        match = _RULE.fullmatch(part.strip())
        if match is None:
            raise ValueError(f"{part.strip()!r} in {text!r}: {_WANTED} is needed")
        number = IGNORE_INDEX if match["number"] == "ignore" else int(match["number"])
        if number == IGNORE_INDEX and match["number"] != "ignore":
            raise ValueError(f"{part.strip()!r} in {text!r}: class numbers are 0 to 254")
        if match["others"]:
            if others is not None:
                raise ValueError(f"{text!r}: names all others (*) twice; once is enough")
            others = number
            continue
        kinds.add(match["colour"] is not None)
        low = float(int(match["colour"], 16)) if match["colour"] else float(match["low"])
        high = float(match["high"]) if match["high"] else low
        if high < low:
            raise ValueError(f"{part.strip()!r} in {text!r}: ends before it begins; write the smaller value first")
        rules.append((low, high, number))
    if not rules:
        raise ValueError(f"{text!r}: names no value; {_WANTED} is needed")
    if len(kinds) > 1:
        raise ValueError(f"{text!r}: names values and colours; give all as colours (black is #000000)")
    exact = [low for low, high, _ in rules if low == high]
    if len(set(exact)) < len(exact):
        raise ValueError(f"{text!r}: names a value twice; once is enough")
    return MaskValues(tuple(rules), others, kinds == {True})
