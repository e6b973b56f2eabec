"""The page of an audit: complete, closed in itself, safe with any name, the same every time."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from audit_support import FAULTS, audit, make_broken, save, square, texture
from semidg.experiment.audit import KINDS, Audit
from semidg.experiment.audit.issues import COLUMNS, cells
from semidg.experiment.audit.quality import with_quality
from semidg.experiment.label_quality import Quality
from semidg.report.audit_page import write_audit_page


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Audit:
    return audit(make_broken(tmp_path_factory.mktemp("broken")))


def data_of(page: str) -> dict[str, object]:
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert match
    data: dict[str, object] = json.loads(match[1])
    return data


def write(found: Audit, path: Path) -> str:
    write_audit_page(found, path)
    return path.read_text("utf-8")


def test_the_page_holds_every_row_and_a_picture_of_every_usable_image_named(found: Audit, tmp_path: Path) -> None:
    page = write(found, tmp_path / "index.html")
    data = data_of(page)
    assert data["columns"] == list(COLUMNS)
    assert data["rows"] == [list(cells(issue)) for issue in found.issues]
    named = {name for issue in found.issues for name in (issue.id, issue.other)} & {*found.cases}
    cases = data["cases"]
    assert isinstance(cases, dict)
    assert {*cases} == named
    with Image.open(io.BytesIO(base64.b64decode(cases["b/coloured"]["picture"].partition(",")[2]))) as picture:
        assert (picture.mode, picture.size) == ("RGB", (64, 48))
    assert cases["b/cut"]["mask"].startswith("M")
    assert "predicted" not in cases["b/cut"]
    for kind in FAULTS:
        assert f'data-kind="{kind}"' in page
    assert all(KINDS[kind].meaning in page.replace("&#39;", "'") for kind in FAULTS)


def test_the_page_needs_no_network_and_is_the_same_every_time(found: Audit, tmp_path: Path) -> None:
    page = write(found, tmp_path / "index.html")
    addresses = {a for a in re.findall(r"https?://[^\s\"'<)]+", page) if not a.startswith("http://www.w3.org/")}
    assert addresses == set()
    assert re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', page) == []
    assert page == write(found, tmp_path / "again.html")
    assert str(found.index.root.parent) not in page


def test_names_are_text(tmp_path: Path) -> None:
    name = "a&b</script><script>alert(1)"
    root = tmp_path / "d"
    save(root, "x/1", texture(0), np.zeros((48, 64), np.uint8))
    save(root, "x/2", texture(1), square())
    for part in ("images", "masks"):
        (root / "x" / part / "1.png").rename(root / "x" / part / f"{name.replace('/', '')}.png")
    page = write(audit(root), tmp_path / "index.html")
    assert "<script>alert" not in page
    assert page.count("</script>") == 2
    assert [row[0] for row in data_of(page)["rows"]] == [f"x/{name.replace('/', '')}"]  # type: ignore[attr-defined]


def test_predictions_are_drawn_beside_the_mask(found: Audit, tmp_path: Path) -> None:
    expected = np.zeros((16, 16), np.uint8)
    expected[4:8, 4:8] = 1
    judged = with_quality(found, [Quality("a/0", 0.1, expected, "fold 2")])
    page = write(judged, tmp_path / "index.html")
    case = data_of(page)["cases"]["a/0"]  # type: ignore[index]
    assert case["predicted"] != case["mask"]
    assert "Orange: the prediction" in page
    assert "fold 2" in page


def test_distances_are_shown_as_they_are(found: Audit, tmp_path: Path) -> None:
    page = write(found, tmp_path / "index.html")
    assert f'title="distance of a and b" style="--shade: 100%">{found.domains.distance[0, 1]:.1f}<' in page
    assert f"±{found.domains.spread[0]:.1f}" in page


def test_a_clean_or_empty_data_set_has_a_page(found: Audit, tmp_path: Path) -> None:
    page = write(replace(found, issues=()), tmp_path / "index.html")
    assert "every check came out clean" in page
    save(tmp_path / "d", "a/0", texture(0))
    (tmp_path / "d" / "a" / "images" / "0.png").write_bytes(b"")
    page = write(audit(tmp_path / "d"), tmp_path / "index.html")
    assert len(data_of(page)["rows"]) == 1  # type: ignore[arg-type]
    assert 'id="domains"' not in page
