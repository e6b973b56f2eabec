"""The page of an audit: every finding with its picture, the domains, and the choice of what to leave out."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from semidg.experiment.audit import KINDS, SEVERITIES, Audit
from semidg.experiment.audit.cases import SIDE, WINDOW, Case, Labels
from semidg.experiment.audit.issues import COLUMNS, cells, counts
from semidg.files import write_bytes
from semidg.report.outlines import outline_path
from semidg.report.page import environment
from semidg.report.svg import chart, colour, dashes, swatch, to_svg

_MOST_CURVES = 6  # domains in the chart of grey values; more cannot be told apart


def write_audit_page(audit: Audit, out: Path) -> None:
    """Write the page to ``out``: one file, no network, the same bytes for the same audit.

    It holds a small picture of each image that is named in a finding, its mask as a line, and every row of issues.csv.
    """
    named = {name for issue in audit.issues for name in (issue.id, issue.other)}
    page = (
        environment()
        .get_template("audit.html.jinja")
        .render(
            title=f"Audit of {audit.index.root.resolve().name}",
            facts=_facts(audit),
            kinds=[(name, KINDS[name], number) for name, number in counts(audit.issues).items()],
            domains=audit.domains.table,
            distances=_distances(audit),
            curves=_curves(audit),
            audit=audit,
            side=SIDE,
            window=WINDOW,
            data={
                "columns": COLUMNS,
                "kinds": {name: [kind.severity, kind.meaning, kind.value] for name, kind in KINDS.items()},
                "rows": [cells(issue) for issue in audit.issues],
                "cases": {name: _case(audit.cases[name], audit.predicted) for name in sorted(named & {*audit.cases})},
            },
        )
    )
    write_bytes(out, page.encode("utf-8"))


def _facts(audit: Audit) -> list[tuple[str, str, str]]:
    unusable = audit.images - len(audit.index.records)
    masks = sum(record.labelled for record in audit.index.records)
    facts = [("Images", str(audit.images), f"{masks} with a mask" + (f", {unusable} unusable" if unusable else ""))]
    for severity in SEVERITIES:
        own = [issue for issue in audit.issues if issue.severity == severity]
        images = len({name for issue in own for name in (issue.id, issue.other) if name})
        facts.append(
            (f"{severity.capitalize()}s", str(len(own)), f"{images} image{'s' * (images != 1)}" if own else "none")
        )
    return facts


def _case(case: Case, predicted: Mapping[str, Labels]) -> dict[str, Any]:
    """A picture, its outlines in half pixels of it, and a line of facts."""
    record = case.record
    with Image.open(io.BytesIO(case.picture)) as picture:
        width, height = picture.size
    about = [record.domain, record.class_name if record.class_name != record.domain else ""]
    found: dict[str, Any] = {
        "picture": f"data:image/jpeg;base64,{base64.b64encode(case.picture).decode('ascii')}",
        "size": [width, height],
        "original": [record.width, record.height],
        "domain": record.domain,
        "facts": " · ".join([*(part for part in about if part), f"{record.width} × {record.height}"]),
    }
    if case.outline is not None:
        with Image.open(io.BytesIO(case.outline)) as outline:
            found["mask"] = outline_path(np.asarray(outline))
    if record.id in predicted:
        labels = np.asarray(Image.fromarray(predicted[record.id]).resize((width, height), Image.Resampling.NEAREST))
        found["predicted"] = outline_path(labels)
    return found


def _distances(audit: Audit) -> list[tuple[str, list[tuple[str, int, str]]]]:
    """Rows of (domain, cells of (text, shade from 0 to 100 %, what it is)); the diagonal is the spread."""
    domains = audit.domains
    largest = float(domains.distance.max(initial=0)) or 1.0
    names = [domain.name for domain in domains.table]
    rows = []
    for k, name in enumerate(names):
        row = []
        for j, other in enumerate(names):
            if k == j:
                row.append((f"±{domains.spread[k]:.1f}", -1, f"spread of the images of {name}"))
            else:
                value = float(domains.distance[k, j])
                row.append((f"{value:.1f}", round(100 * value / largest), f"distance of {name} and {other}"))
        rows.append((name, row))
    return rows


def _curves(audit: Audit) -> dict[str, Any] | None:
    """The chart of grey values by domain, with its legend."""
    table = audit.domains.table
    if not 0 < len(table) <= _MOST_CURVES:
        return None
    with chart(5.2, 2.4) as (figure, axes):
        for place, domain in enumerate(table):
            share = 100 * domain.histogram.reshape(64, 4).sum(axis=1)
            axes.plot(np.arange(64) * 4 + 1.5, share, color=colour(place), linestyle=dashes(place), linewidth=1.4)
        axes.set(xlabel="grey value", ylabel="% of pixels (steps of 4)", xlim=(0, 255), ylim=(0, None))
        drawn: Markup = to_svg(figure, "grey", "Grey values of each domain")
    return {"svg": drawn, "legend": [(domain.name, swatch(place)) for place, domain in enumerate(table)]}
