"""The picture of the domains: which images it shows, and through the verb that makes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semidg.cli import main
from semidg.data.index import build_index
from semidg.errors import DataError
from semidg.report.domains_figure import write_domains_figure


def write_domain(root: Path, name: str, greys: list[int]) -> None:
    for i, grey in enumerate(greys):
        path = root / name / "images" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = np.full((24, 32), grey, np.uint8)
        picture[i : i + 5, 3:9] = 200  # no image is constant, none a twin
        Image.fromarray(picture).save(path)


def test_each_domain_has_a_row_with_its_most_typical_images(tmp_path: Path) -> None:
    write_domain(tmp_path / "data", "dark", [10] * 9 + [160])  # of ten, the bright one is left out
    write_domain(tmp_path / "data", "bright", [120, 121])
    write_domains_figure(build_index(tmp_path / "data"), tmp_path / "domains.png")
    pixels = np.asarray(Image.open(tmp_path / "domains.png").convert("L"))
    above, below = np.array_split(pixels, 2)  # rows in the order of the names
    share = [[np.isclose(half, grey, atol=2).mean() for grey in (120, 10, 160)] for half in (above, below)]
    assert share[0][0] > 0.05
    assert share[0][1] < 0.01
    assert share[1][1] > 0.2
    assert max(share[0][2], share[1][2]) < 0.005
    assert share[1][1] > 3 * share[0][0]  # eight pictures beside two


def test_a_name_with_dollars_is_a_name(tmp_path: Path) -> None:
    write_domain(tmp_path / "data", "cost$50_$", [10, 30])
    write_domains_figure(build_index(tmp_path / "data"), tmp_path / "domains.svg")
    assert (tmp_path / "domains.svg").stat().st_size > 0


def test_the_verb_index_writes_it_and_refuses_other_endings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    write_domain(data, "a", [10, 11, 12, 13, 120, 121])
    picture = tmp_path / "styles.svg"
    arguments = ["index", str(data), "--out", str(tmp_path / "index.csv"), "--domains", "styles:2"]
    assert main([*arguments, "--picture", str(picture)]) == 0
    said = capsys.readouterr().out
    assert "style-1: 4 images" in said
    assert "style-2: 2 images" in said
    assert picture.read_text().count("<image") == 6
    assert main([*arguments, "--picture", str(tmp_path / "styles.gif")]) == 2
    assert "styles.gif: a picture is written as .png or .svg" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"\.png or \.svg"):
        write_domains_figure(build_index(data), tmp_path / "styles.jpg")
