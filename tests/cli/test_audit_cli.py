"""semidg audit as a user calls it, and what follows: a split and a training without the images that were marked."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from audit_support import FAULTS, make_broken, save, square, texture
from semidg.cli import main

TINY = [
    "--data.size", "32", "--data.channels", "1", "--labelled", "0.5",
    "--network.encoder", "tu-test_efficientnet", "--network.weights", "none",
    "--network.atrous-rates", "1", "2", "3", "--trainer.max-steps", "2", "--trainer.eval-every", "2",
    "--trainer.checkpoint-every", "2", "--trainer.batch-labelled", "2", "--trainer.batch-unlabelled", "2",
    "--trainer.threads", "1", "--trainer.accelerator", "cpu", "--method.name", "supervised", "--data.layout", "folders",
]  # fmt: skip
Capture = pytest.CaptureFixture[str]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def mark(path: Path, **marks: str) -> Path:
    """The list with ``exclude`` written into the first row of each id; ``/`` is written ``_``."""
    listed = rows(path)
    for name, value in marks.items():
        next(row for row in listed if row["id"] == name.replace("_", "/"))["exclude"] = value
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, listed[0])
        writer.writeheader()
        writer.writerows(listed)
    return path


def refused(capsys: Capture, *arguments: object) -> str:
    assert main([str(a) for a in arguments]) == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured.err


def test_a_broken_data_set_is_audited_and_summed_up(tmp_path: Path, capsys: Capture) -> None:
    root = make_broken(tmp_path / "d")
    assert main(["audit", str(root), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"issues.csv", "index.html"}
    for kind, found in FAULTS.items():
        assert re.search(rf"^ +{len(found)}  \w+ +{kind}$", printed, re.MULTILINE), kind
    order = [printed.index(kind) for kind in ("file that cannot be used", "twins of different domains", "holes")]
    assert order == sorted(order)
    assert "5 that cannot be used" in printed
    assert str(tmp_path / "out" / "index.html") in printed


def test_mistakes(tmp_path: Path, capsys: Capture) -> None:
    root, out = make_broken(tmp_path / "d"), tmp_path / "out"
    assert "no image found" in refused(capsys, "audit", tmp_path, "--out", out)
    assert "give one of them" in refused(capsys, "audit", root, "--out", out, "--run", "r", "--folds", 3)
    assert "belong together" in refused(capsys, "audit", root, "--out", out, "--folds", 3)
    assert "at least 2" in refused(capsys, "audit", root, "--out", out, "--folds", 1, "--config", "phantom")
    assert "similarity" in refused(capsys, "audit", root, "--out", out, "--similarity", 2)
    assert "no split lists" in refused(capsys, "audit", root, "--out", out, "--split", tmp_path)
    assert not out.exists()
    assert "network.classes is 2, --classes 3" in refused(
        capsys, "audit", root, "--out", out, "--classes", 3, "--folds", 2, "--config", "phantom"
    )


def test_what_is_marked_stays_out_of_a_split_and_of_a_training(tmp_path: Path, capsys: Capture) -> None:
    root, out = tmp_path / "d", tmp_path / "out"
    for number in range(10):
        save(root, f"a/{number}", texture(number), square())
    save(root, "a/copy", texture(0), square())
    save(root, "a/speck", texture(99), square() | square(40, 50, 1))
    assert main(["audit", str(root), "--out", str(out)]) == 0
    issues = out / "issues.csv"
    assert "no row is marked" in refused(capsys, "split", root, "--out", tmp_path / "no", "--exclude", issues)
    mark(issues, a_0="other", a_speck="yes")
    capsys.readouterr()

    assert main(["split", str(root), "--out", str(tmp_path / "lists"), "--exclude", str(issues)]) == 0
    assert "2 images" in capsys.readouterr().out
    meta = json.loads((tmp_path / "lists" / "split.json").read_text())
    assert meta["left_out"] == {"by the user": ["a/copy", "a/speck"]}
    assert sum(part["images"] for part in meta["counts"].values()) == 10

    run = tmp_path / "run"
    train = ["train", "busi-lite", "--data.root", str(root), "--out", str(run), *TINY]
    assert main([*train, "--data.split.exclude", str(issues)]) == 0
    assert {row["id"] for row in rows(run / "index.csv")} == {f"a/{number}" for number in range(10)}
    assert json.loads((run / "split" / "split.json").read_text())["left_out"] == meta["left_out"]
    capsys.readouterr()

    # marks are the user's work: a second audit does not write over them
    assert "marks of yours" in refused(capsys, "audit", root, "--out", out)
    assert [row["exclude"] for row in rows(issues) if row["exclude"]] == ["yes", "other"]

    # the run scores the masks that it did not learn from
    assert main(["audit", str(root), "--out", str(tmp_path / "scored"), "--run", str(run)]) == 0
    assert "quality.csv: the scores of" in capsys.readouterr().out
    scored = rows(tmp_path / "scored" / "quality.csv")
    learnt = {line.split("\t")[0] for line in (run / "split" / "labelled.txt").read_text().splitlines()}
    assert scored
    assert not {f"a/images/{row['id'][2:]}.png" for row in scored} & learnt
    assert [float(row["score"]) for row in scored] == sorted(float(row["score"]) for row in scored)


def test_masks_are_scored_by_folds(tmp_path: Path, capsys: Capture) -> None:
    root, out = tmp_path / "d", tmp_path / "out"
    for number in range(8):
        save(root, f"a/{number}", texture(number), square())
    assert main(["train", "phantom", *TINY, "--print-config"]) == 0
    (tmp_path / "tiny.yaml").write_text(capsys.readouterr().out)
    config = str(tmp_path / "tiny.yaml")
    assert main(["audit", str(root), "--out", str(out), "--folds", "2", "--config", config]) == 0
    assert sorted(row["id"] for row in rows(out / "quality.csv")) == [f"a/{number}" for number in range(8)]
    assert {row["source"] for row in rows(out / "quality.csv")} == {"fold 1", "fold 2"}
    unlike = {row["id"] for row in rows(out / "issues.csv") if row["kind"] == "mask unlike its prediction"}
    assert unlike == {row["id"] for row in rows(out / "quality.csv") if row["issue"]}


def test_a_stop_in_a_fold_says_that_the_same_call_goes_on(
    phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from semidg.experiment import label_quality
    from semidg.experiment.run import Stopped

    def stop(*arguments: object) -> None:
        raise Stopped(tmp_path / "folds" / "fold-1", 5, 15)

    monkeypatch.setattr(label_quality, "score_by_folds", stop)
    arguments = ["audit", str(phantom), "--out", str(tmp_path / "out"), "--folds", "2", "--config", "phantom"]
    assert main(arguments) == 143
    said = capsys.readouterr().err
    assert "fold-1 after step 5; the same call goes on" in said
    assert "train --resume" not in said
