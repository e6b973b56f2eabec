"""Every loss term that a method can log is explained in the report."""

from __future__ import annotations

from semidg.methods import METHODS
from semidg.report.sections import TERMS


def test_every_term_of_every_method_has_a_text() -> None:
    terms = {term for method in METHODS.values() for term in method.terms} | {"edge", "boundary", "hausdorff"}
    assert terms == set(TERMS)
