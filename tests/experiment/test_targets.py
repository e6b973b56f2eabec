"""targets: all, and training with a domain that has no labels."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from comparison_support import comparison
from semidg.cli import main
from semidg.config_file import parse_config
from semidg.errors import ConfigError, DataError, SplitError
from semidg.experiment.grid import expand
from semidg.experiment.prepare import prepare
from semidg.experiment.run import train
from semidg.experiment.targets import Domains, domains_of, resolve_targets
from tests_support import tiny_config

ARMS = {"supervised": {}, "dual_level": {}}


@pytest.fixture
def pool(phantom: Path, tmp_path: Path) -> Path:
    """The phantom, its last scanner without masks."""
    root = tmp_path / "data"
    shutil.copytree(phantom, root)
    shutil.rmtree(root / "cirrus" / "masks")
    return root


def test_every_domain_with_masks_is_held_out_in_turn(pool: Path) -> None:
    asked = comparison(ARMS, targets="all", overrides={"data.root": str(pool)})
    with pytest.raises(ConfigError, match="not read yet"):
        expand(asked)
    resolved, domains = resolve_targets(asked)
    assert domains == Domains(("aster", "borea", "delta"), ("cirrus",))
    assert sorted({cell.target for cell in expand(resolved) if cell.target}) == ["aster", "borea", "delta"]
    assert len(expand(resolved)) == 6
    assert resolve_targets(resolved) == (resolved, None)


def test_one_arm_alone_may_ask_for_all(pool: Path) -> None:
    arms = {"supervised": {"targets": "all"}, "dual_level": {"targets": ["delta"]}}
    resolved, _ = resolve_targets(comparison(arms, overrides={"data.root": str(pool)}))
    assert [(c.arm, c.target) for c in expand(resolved)] == [
        ("supervised", "aster"),
        ("supervised", "borea"),
        ("supervised", "delta"),
        ("dual_level", "delta"),
    ]


def test_derived_styles_are_domains_too(phantom: Path) -> None:
    data = {"root": phantom, "domains": "styles:2"}
    assert domains_of(parse_config({"data": data}, "test")).labelled == ("style-1", "style-2")


def test_data_that_cannot_be_held_out_are_refused(pool: Path, tmp_path: Path) -> None:
    def resolve(root: Path | None, **arms: object) -> None:
        resolve_targets(comparison(arms or ARMS, targets="all", overrides={"data.root": root and str(root)}))

    with pytest.raises(ConfigError, match=r"arm a: sets data\.root; with targets all"):
        resolve(pool, a={"method.name": "supervised", "data.root": "other"})
    with pytest.raises(ConfigError, match=r"data\.root is not set"):
        resolve(None)
    (pool / "spacing.csv").unlink()
    for domain in ("aster", "borea"):
        shutil.rmtree(pool / domain)
    with pytest.raises(ConfigError, match=r"1 domain\(s\) with masks \(delta\)"):
        resolve(pool)
    (pool / "delta" / "masks" / "lost.png").write_bytes(b"")
    with pytest.raises(DataError, match="mask without image"):
        resolve(pool)


def test_a_domain_without_labels_is_trained_on_and_never_scored(pool: Path, tmp_path: Path) -> None:
    config = tiny_config(pool)
    train(config, tmp_path / "run")
    split = prepare(config, tmp_path / "run").split
    assert {r.domain for r in split.unlabelled} >= {"cirrus"}
    assert not {r.domain for r in (*split.labelled, *split.validation)} & {"cirrus", "delta"}
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["protocol"] == "leave_one_domain_out"
    assert [*summary["result"]["by_domain"]] == ["delta"]


def test_several_roots_are_trained_on_and_scored_again(phantom: Path, tmp_path: Path) -> None:
    roots = [tmp_path / "data" / name for name in ("north", "south", "delta")]
    for root, scanner in zip(roots, ("aster", "borea", "delta"), strict=True):
        shutil.copytree(phantom / scanner, root / scanner)
    data = {"root": roots[0], "more_roots": roots[1:], "size": 32, "channels": 1, "groups": r"(\d+)\.png"}
    config = tiny_config(data=data | {"split": {"target": "delta", "validation": 0.2}})
    with pytest.raises(SplitError, match="no image with a mask is left"):
        train(config, tmp_path / "none")  # this pattern puts image 0 of every scanner into one group
    config = tiny_config(data=data | {"groups": None, "split": {"target": "delta", "validation": 0.2}})
    train(config, tmp_path / "run")
    before = (tmp_path / "run" / "summary.json").read_text()
    assert [*json.loads(before)["result"]["by_domain"]] == ["delta"]
    (tmp_path / "data").rename(tmp_path / "moved")
    assert main(["evaluate", str(tmp_path / "run"), "--root", str(tmp_path / "moved")]) == 0
    after = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert after["result"] == json.loads(before)["result"]


def test_all_on_the_command_line_names_the_domains(pool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--methods", "supervised", "--targets", "all", "--data.root", str(pool), "--out", str(pool / "out")]
    assert main(["compare", "phantom", *arguments, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "domains held out in turn: aster, borea, delta\n" in shown
    assert "without masks, and so in training only: cirrus\n" in shown
    assert "3 runs: 0 done, 0 half-done, 3 left" in shown
