"""The verbs as a user calls them: what they write, what they print, and one line for every mistake."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from semidg.cli import VERBS, main, wait_briefly
from semidg.experiment.bundle import load_bundle, save_bundle

TINY = [
    "--data.size", "32", "--data.channels", "1", "--data.split.target", "delta", "--labelled", "0.4",
    "--network.encoder", "tu-test_efficientnet", "--network.weights", "none",
    "--network.atrous-rates", "1", "2", "3",
    "--trainer.max-steps", "4", "--trainer.eval-every", "2", "--trainer.checkpoint-every", "2",
    "--trainer.batch-labelled", "2", "--trainer.batch-unlabelled", "2", "--trainer.threads", "1",
    "--trainer.accelerator", "cpu",
]  # fmt: skip
Refused = Callable[..., str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Calls the command line, wants exit code 2 and error lines without a traceback, and returns them."""

    def call(*arguments: object) -> str:
        try:
            code = main([str(a) for a in arguments])
        except SystemExit as stop:  # of the option parser
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        assert code == 2, captured.err
        assert "Traceback" not in captured.err
        return captured.err + captured.out

    return call


@pytest.fixture(scope="module")
def run(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run trained by the command line."""
    out = tmp_path_factory.mktemp("cli") / "run"
    assert main(["train", "phantom", "--data.root", str(phantom), "--out", str(out), *TINY]) == 0
    return out


def test_help_names_every_verb_and_each_verb_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(verb in text for verb in VERBS)
    for verb in VERBS:
        with pytest.raises(SystemExit) as stop:
            main([verb, "--help"])
        assert not stop.value.code
        assert f"semidg {verb}" in capsys.readouterr().out
    assert main([]) == 2
    assert main(["--version"]) == 0


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("data.domains", "x", "data.domains: must be layout, or styles:K with a number K of 2 to 99 (got 'x')"),
        ("labelled", "2", "labelled: Input should be less than or equal to 1 (got 2.0)"),
        ("trainer.threads", "-1", "trainer.threads: Input should be greater than or equal to 0 (got -1)"),
        ("data.masks", "m/*", "data: data.masks needs data.images, the pattern of the images"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_key(
    refused: Refused, tmp_path: Path, option: str, value: str, said: str
) -> None:
    assert refused("train", "phantom", f"--{option}", value, "--out", tmp_path / "r") == (
        f"semidg: error: options: {said}\n"
    )


def test_a_verb_or_key_with_a_typo_gets_the_nearest(refused: Refused, phantom: Path, tmp_path: Path) -> None:
    assert "did you mean 'train'" in refused("tran")
    assert "--trainer.max-steps" in refused("train", "phantom", "--trainer.max-stepz", "3", "--out", tmp_path / "r")
    assert "did you mean 'phantom'" in refused("train", "phantm", "--out", tmp_path / "r")
    file = tmp_path / "bad.yaml"
    file.write_text("trainer:\n  max_step: 3\n")
    message = refused("train", "--config", file, "--out", tmp_path / "r")
    assert "bad.yaml" in message
    assert "'trainer.max_step'; the nearest known key is 'trainer.max_steps'" in message
    assert not (tmp_path / "r").exists()


def test_configuration_is_printed_and_read_back(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["train", "busi-lite", "--method.name", "epl", "--seed", "7", "--print-config"]) == 0
    text = capsys.readouterr().out
    assert "name: epl" in text
    (tmp_path / "c.yaml").write_text(text)
    assert main(["train", "--config", str(tmp_path / "c.yaml"), "--print-config"]) == 0
    assert capsys.readouterr().out == text


@pytest.mark.parametrize(
    "arguments", [[], ["--help"], ["--version"], ["index", "--help"], ["index", "{phantom}", "--out", "{out}"]]
)
def test_a_reader_that_has_read_enough_is_no_error(phantom: Path, tmp_path: Path, arguments: list[str]) -> None:
    places = {"phantom": phantom, "out": tmp_path / "index.csv"}
    command = [sys.executable, "-m", "semidg", *(argument.format(**places) for argument in arguments)]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
    assert done.returncode in (0, 141)


def test_a_closed_output_is_no_error(phantom: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "semidg", "index", str(phantom), "--out", str(tmp_path / "index.csv")]
    done = subprocess.run(["sh", "-c", f"{shlex.join(command)} >&-"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_another_broken_pipe_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(arguments: list[str]) -> int:
        raise BrokenPipeError

    monkeypatch.setattr("semidg.cli._run", broken)
    with pytest.raises(BrokenPipeError):
        main(["index"])


def test_mistakes_of_train(refused: Refused, phantom: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    root = ["--data.root", phantom, "--out", out, *TINY]
    assert "data.root is not set" in refused("train", "phantom", "--out", out)
    assert "--out is not set" in refused("train", "phantom", "--data.root", phantom)
    assert "say what to train: a preset" in refused("train")
    assert "a preset" in refused("train", "--out", out)
    assert "did you mean 'fixmatch'?" in refused("train", "phantom", "--method.name", "fixmach")
    assert "not both" in refused("train", "phantom", "--config", "x.yaml", "--out", out)
    assert "nowhere" in refused("train", "phantom", *root, "--data.root", tmp_path / "nowhere")
    assert "resnet_18" in refused("train", "phantom", *root, "--network.encoder", "resnet_18")
    assert "aster, borea, cirrus, delta" in refused("train", "phantom", *root, "--data.split.target", "echo")
    assert "labelled" in refused("train", "phantom", *root, "--labelled", "0.001")
    assert "labelled" in refused("train", "phantom", *root, "--labelled", "0")
    assert "three ways" in refused("train", "phantom", *root, "--network.weights", tmp_path / "missing.pth")
    assert "multiple of it, 3 say" in refused("train", "phantom", *root, "--trainer.devices", "3")
    assert "srun or torchrun" in refused("train", "phantom", *root, "--trainer.nodes", "2")
    assert "not a run folder" in refused("train", "--resume", "--out", tmp_path / "nothing")
    assert not out.exists()


def test_resume_of_a_finished_run_only_scores_it(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "checkpoints" / "last.pt").read_bytes()
    assert main(["train", "--resume", "--out", str(run)]) == 0
    assert (run / "checkpoints" / "last.pt").read_bytes() == before
    assert "domain delta" in capsys.readouterr().out


def test_train_refuses_to_overwrite(refused: Refused, run: Path, phantom: Path) -> None:
    assert "already holds a run" in refused("train", "phantom", "--data.root", phantom, "--out", run, *TINY)


def test_evaluate_prints_and_writes(
    run: Path, phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(run)]) == 0
    text = capsys.readouterr().out
    assert "95 % interval" in text
    assert "network_1" in text
    before = (run / "cases.csv").read_bytes()
    assert main(["evaluate", str(run), "--part", "validation"]) == 0
    assert "validation part" in capsys.readouterr().out
    scored = set(pd.read_csv(run / "parts" / "validation" / "cases.csv")["id"])
    assert scored
    assert not scored & set(pd.read_csv(run / "cases.csv")["id"])
    assert (run / "cases.csv").read_bytes() == before
    assert main(["evaluate", str(run), "--data", str(phantom), "--out", str(tmp_path / "e")]) == 0
    cases = pd.read_csv(tmp_path / "e" / "cases.csv")
    assert len(cases) == 24
    assert cases.columns[0] == "id"
    assert json.loads((tmp_path / "e" / "summary.json").read_text())["result"]["overall"]["n"] == 24
    shutil.copytree(phantom, tmp_path / "other" / phantom.name)
    assert (
        main(["evaluate", str(run), "--data", str(tmp_path / "other" / phantom.name), "--out", str(tmp_path / "e")])
        == 2
    )
    assert "has other results" in capsys.readouterr().err


def test_evaluate_on_data_in_no_layout(
    run: Path, phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], refused: Refused
) -> None:
    scanner = next(path for path in phantom.iterdir() if path.is_dir())
    shutil.copytree(scanner / "images", tmp_path / "hospital" / "scans")
    shutil.copytree(scanner / "masks", tmp_path / "hospital" / "outlines")
    guess = ("--images", "scans/*", "--masks", "outlines/*")
    said = refused("evaluate", run, "--data", tmp_path / "hospital")
    assert "--images 'scans/*' --masks 'outlines/*'" in said
    out = tmp_path / "e"
    assert main(["evaluate", str(run), "--data", str(tmp_path / "hospital"), *guess, "--out", str(out)]) == 0
    assert "hospital" in capsys.readouterr().out
    other = ("--images", "scans/*0*", "--masks", "outlines/*0*", "--out", out)
    assert "has other results" in refused("evaluate", run, "--data", tmp_path / "hospital", *other)
    masked = len(list((scanner / "masks").iterdir()))
    assert len(pd.read_csv(out / "cases.csv")) == masked > 0


def test_adapt_makes_a_model_that_predicts_and_is_scored(
    run: Path, phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], refused: Refused
) -> None:
    (scanner, *_) = sorted(path for path in phantom.iterdir() if path.is_dir())
    made, own = tmp_path / "there.safetensors", run / "model" / "model.safetensors"
    assert main(["adapt", str(run), str(scanner / "images"), "--out", str(made)]) == 0
    count = len(list((scanner / "images").iterdir()))
    assert f"adapted to {count} images, whose statistics count for {100 * count / (count + 8):.0f} %" in (
        capsys.readouterr().out
    )
    before, after = load_bundle(own), load_bundle(made)
    assert after.about["adapted"]["images"] == count
    changed = {
        name.rpartition(".")[2]
        for name, value in after.ensemble.state_dict().items()
        if not value.equal(before.ensemble.state_dict()[name])
    }
    assert changed == {"running_mean", "running_var"}
    assert main(["predict", str(made), str(scanner / "images"), "--out", str(tmp_path / "p")]) == 0
    assert len(pd.read_csv(tmp_path / "p" / "predictions.csv")) == count

    cases = (run / "cases.csv").read_bytes()
    capsys.readouterr()
    assert main(["evaluate", str(run), "--model", str(made), "--out", str(tmp_path / "e")]) == 0
    target = json.loads((run / "summary.json").read_text("utf-8"))["target"]
    seen = count if scanner.name == target else 0
    assert f"adapted to {count} images without masks, {seen} of which are scored here" in capsys.readouterr().out
    both = tmp_path / "e2"
    assert main(["evaluate", str(run), "--data", str(phantom), "--model", str(made), "--out", str(both)]) == 0
    assert f"{count} of which are scored here" in json.loads((both / "summary.json").read_text("utf-8"))["mark"]
    scored = pd.read_csv(tmp_path / "e" / "cases.csv")
    assert scored["id"].tolist() == pd.read_csv(run / "cases.csv")["id"].tolist()
    assert (run / "cases.csv").read_bytes() == cases
    assert "has other results" in refused("evaluate", run, "--data", phantom, "--out", tmp_path / "e")
    part = ("--part", "validation", "--out", tmp_path / "v")
    assert main(["evaluate", str(run), "--model", str(made), *map(str, part)]) == 0
    assert json.loads((tmp_path / "v" / "summary.json").read_text())["data"] == "validation part"
    assert not (run / "parts" / "adapted").exists()

    images = scanner / "images"
    assert "adapted before" in refused("adapt", made, images, "--out", tmp_path / "twice.safetensors")
    assert "is the model itself" in refused("adapt", run, images, "--out", own)
    assert "a file NAME.safetensors" in refused("adapt", run, images, "--out", tmp_path / "m")
    assert "does not exist" in refused("adapt", run, tmp_path / "none", "--out", tmp_path / "m.safetensors")
    assert "a folder of their own" in refused("evaluate", run, "--model", made)
    assert "a folder of their own" in refused("evaluate", run, "--model", made, "--out", run)
    out = ("--out", tmp_path / "o")
    assert "was not made by `semidg adapt`" in refused("evaluate", run, "--model", own, *out)
    other = load_bundle(made)
    save_bundle(tmp_path / "other.safetensors", replace(other, about={**other.about, "seed": 77}))
    assert "was not made of" in refused("evaluate", run, "--model", tmp_path / "other.safetensors", *out)


def test_index_says_where_masks_were_not_looked_for(
    phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scanner = next(path for path in sorted(phantom.iterdir()) if path.is_dir())
    for site in ("a", "b"):
        shutil.copytree(scanner, tmp_path / "set" / site)
    (tmp_path / "set" / "b" / "masks").rename(tmp_path / "set" / "b" / "labels")
    assert main(["index", str(tmp_path / "set"), "--out", str(tmp_path / "index.csv")]) == 0
    a, b, _, unused = capsys.readouterr().out.splitlines()[1:]
    monkeypatch.chdir(tmp_path)
    assert main(["index", "set", "--out", str(tmp_path / "index.csv")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == unused
    names = sorted(path.name for path in (tmp_path / "set" / "b" / "labels").iterdir())
    assert unused == f"  not used: {len(names)} image files, such as b/labels/{names[0]}, b/labels/{names[1]}"
    assert "0 with a mask (masks lie in" in b
    assert b.endswith("labels was not looked into)")
    assert "looked" not in a


def test_evaluate_of_a_run_of_another_version(refused: Refused, run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    (copy / "run.json").write_text('{"format": 2}')
    assert "format 2" in refused("evaluate", copy)
    assert "not a run folder" in refused("evaluate", tmp_path)
    assert "no image has a mask" in refused("evaluate", run, "--data", unlabelled(tmp_path / "plain"))
    assert "--part validation is of the run's own data" in refused(
        "evaluate", run, "--data", "x", "--part", "validation"
    )
    assert "--images is for another data set" in refused("evaluate", run, "--images", "i/*", "--masks", "m/*")
    assert "give both" in refused("evaluate", run, "--data", "x", "--images", "i/*")
    assert "--out is for the results on other data" in refused("evaluate", run, "--out", tmp_path / "o")


def test_results_on_another_hospital_have_a_page_and_those_of_an_adapted_model_are_compared(
    run: Path, phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], refused: Refused
) -> None:
    """Of a copy of the run, which then goes."""
    shutil.copytree(run, tmp_path / "run")
    own, (scanner, *_) = tmp_path / "run", sorted(path for path in phantom.iterdir() if path.is_dir())
    shutil.copytree(scanner / "images", tmp_path / "b" / "scans")
    (tmp_path / "b" / "outlines").mkdir()
    for path in (scanner / "masks").iterdir():  # inverted
        Image.fromarray(255 - 255 * (np.asarray(Image.open(path)) > 0).astype(np.uint8)).save(
            tmp_path / "b" / "outlines" / path.name
        )
    count, model = len(list((scanner / "masks").iterdir())), tmp_path / "b.safetensors"
    read = ("--images", "scans/*", "--masks", "outlines/*", "--mask-values", "0:1,255:0")
    scored = ("evaluate", str(own), "--data", str(tmp_path / "b"), *read)
    assert main([*scored, "--out", str(tmp_path / "plain")]) == 0
    assert f"semidg report {tmp_path / 'plain'}" in capsys.readouterr().out
    assert main(["report", str(tmp_path / "plain")]) == 0
    page = (tmp_path / "plain" / "report.html").read_text("utf-8")
    assert f"{count} images of b, another data set" in page
    assert "data:image/jpeg" in page
    assert "The picture has a Dice of" not in page

    assert main(["adapt", str(own), str(tmp_path / "b" / "scans"), "--out", str(model)]) == 0
    assert main([*scored, "--model", str(model), "--out", str(tmp_path / "fit")]) == 0
    capsys.readouterr()
    assert main(["report", str(tmp_path / "plain"), str(tmp_path / "fit"), "--out", str(tmp_path / "both.html")]) == 0
    said = capsys.readouterr().out
    assert "dual_level, adapted minus dual_level: " in said
    assert "--augmentation: give its results a folder" in refused(*scored, "--augmentation", "scales")
    assert main([*scored, "--augmentation", "scales", "--out", str(tmp_path / "scales")]) == 0
    assert "test-time augmentation: scales" in capsys.readouterr().out
    scales = ("--augmentation", "scales", "--out", tmp_path / "scales")
    assert "has other results" in refused(*scored, "--augmentation", "mirror", *scales[2:])
    assert "has other results" in refused("evaluate", run, *scored[2:], *scales)
    assert "has other results" in refused("evaluate", own, *scales)
    for place in (run, own / "parts" / "validation"):
        assert "of a run on its own data" in refused("evaluate", own, *scales[:3], place)
    numbers = [*scored[:4], "--images", "scans/*", "--masks", "outlines/*", "--ignore-label"]
    assert main([*numbers, "7", "--out", str(tmp_path / "seven")]) == 0
    assert "ignore_label 7" in refused(*numbers, "8", "--out", tmp_path / "seven")
    both = ("report", str(tmp_path / "plain"), str(tmp_path / "scales"), "--out", str(tmp_path / "tta.html"))
    assert main(both) == 0
    assert "dual_level, augmentation scales minus dual_level: " in capsys.readouterr().out
    assert "The picture has a Dice of" not in (tmp_path / "tta.html").read_text("utf-8")
    plain, scales = (pd.read_csv(tmp_path / name / "cases.csv")["dice"] for name in ("plain", "scales"))
    assert (plain != scales).any()
    forced = [*scored, "--augmentation", "none", "--out", str(tmp_path / "none")]
    assert main(forced) == 0
    assert (tmp_path / "none" / "cases.csv").read_bytes() == (tmp_path / "plain" / "cases.csv").read_bytes()
    assert "The picture has a Dice of" not in (tmp_path / "both.html").read_text("utf-8")

    assert main(["evaluate", str(own), "--part", "validation"]) == 0
    assert main(["report", str(own / "parts" / "validation")]) == 0
    assert "validation part" in (own / "parts" / "validation" / "report.html").read_text("utf-8")

    own.rename(tmp_path / "moved")
    assert f"not at {own} any more" in refused("report", tmp_path / "plain")
    assert main(["report", str(tmp_path / "moved" / "parts" / "validation")]) == 0  # which lies in the run
    summary = json.loads((tmp_path / "plain" / "summary.json").read_text("utf-8"))
    del summary["run"]
    (tmp_path / "plain" / "summary.json").write_text(json.dumps(summary), "utf-8")
    assert "does not say which run" in refused("report", tmp_path / "plain")


def test_evaluate_reads_another_hospital_as_it_is_told(
    run: Path, tmp_path: Path, refused: Refused, capsys: pytest.CaptureFixture[str]
) -> None:
    """Masks of other values, two images a patient, a file that is broken."""
    data, out, rng = tmp_path / "b", tmp_path / "out", np.random.default_rng(0)
    for folder in ("pictures", "truth"):
        (data / folder).mkdir(parents=True)
    for k in range(4):
        Image.fromarray(rng.integers(0, 255, (40, 30), dtype=np.uint8)).save(data / f"pictures/p{k // 2}_{k}.png")
        mask = np.full((40, 30), 255, np.uint8)
        mask[5:20, 5:20], mask[25:30] = 128, 7
        Image.fromarray(mask).save(data / f"truth/p{k // 2}_{k}.png")
    (data / "pictures/p2_4.png").write_bytes(b"no image")
    shutil.copy(data / "truth/p0_0.png", data / "truth/p2_4.png")
    asked: list[str | Path] = [run, "--data", data, "--images", "pictures/*", "--masks", "truth/*", "--out", out]
    asked += ["--mask-values", "255:0,128:1,7:ignore"]
    assert "p2_4.png" in refused("evaluate", *asked)
    assert "--groups is for another data set" in refused("evaluate", run, "--groups", "(p)")
    assert "--skip-bad is for another data set" in refused("evaluate", run, "--skip-bad")
    assert "needs exactly one group" in refused("evaluate", *asked, "--groups", "p")
    assert "write 7:ignore" in refused("evaluate", *asked, "--ignore-label", "7")
    asked += ["--groups", r"(p\d)_", "--skip-bad"]
    assert main(["evaluate", *map(str, asked)]) == 0
    printed = capsys.readouterr().out
    assert "skipped: " in printed
    assert "p2_4.png" in printed
    cases = pd.read_csv(out / "cases.csv")
    assert cases.groupby("group")["id"].count().tolist() == [2, 2]
    summary = json.loads((out / "summary.json").read_text("utf-8"))
    assert (summary["mask_values"], summary["groups"]) == ("255:0,128:1,7:ignore", r"(p\d)_")
    assert "p2_4.png" in summary["skipped"][-1]
    assert main(["evaluate", *map(str, asked)]) == 0  # the same again
    swapped = ["255:1,*:0" if word == "255:0,128:1,7:ignore" else word for word in asked]
    swapped[swapped.index(out)] = tmp_path / "swapped"
    assert main(["evaluate", *map(str, swapped)]) == 0
    assert "warning: 4 of 4 masks mark the edge of the image" in capsys.readouterr().err
    assert "give these a folder of their own" in refused(
        "evaluate", *("255:0,*:1" if word == "255:0,128:1,7:ignore" else word for word in asked)
    )


def unlabelled(root: Path) -> Path:
    (root / "site" / "images").mkdir(parents=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 30), dtype=np.uint8)).save(
        root / "site/images/a.png"
    )
    return root


def owned_files(folder: Path) -> dict[str, tuple[int, int]]:
    """Files of many kinds that a user may own, with the sizes they should come back in."""
    rng = np.random.default_rng(1)
    grey = rng.integers(0, 255, (37, 53), dtype=np.uint8)
    colour = rng.integers(0, 255, (29, 31, 3), dtype=np.uint8)
    alpha = np.dstack([colour, np.full((29, 31), 128, np.uint8)])
    pictures = {
        "grey.png": Image.fromarray(grey),
        "colour.jpg": Image.fromarray(colour),
        "alpha.png": Image.fromarray(alpha, "RGBA"),
        "sixteen.tif": Image.fromarray(grey.astype(np.uint16) * 200),
        "palette.png": Image.fromarray(colour).convert("P"),
        "cmyk.jpg": Image.fromarray(colour).convert("CMYK"),
        "one bit.png": Image.fromarray(grey > 100),
        "sub folder/größe 漢 [1] (2).bmp": Image.fromarray(grey),
        "tiny.png": Image.fromarray(grey[:1, :1]),
    }
    sizes = {}
    for name, picture in pictures.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(folder / name)
        sizes[name] = picture.size
    (folder / "link.png").symlink_to(folder / "grey.png")
    return sizes | {"link.png": (53, 37)}


def test_predict_writes_three_pictures_at_the_size_of_each_file(run: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    sizes = owned_files(folder)
    assert main(["predict", str(run), str(folder), "--out", str(out)]) == 0
    for name, size in sizes.items():
        stem = out / Path(name).with_suffix("")
        for kind in ("mask", "confidence", "overlay"):
            with Image.open(stem.with_name(f"{stem.name}_{kind}.png")) as picture:
                assert picture.size == size, name
        mask = np.asarray(Image.open(stem.with_name(f"{stem.name}_mask.png")))
        assert set(np.unique(mask)) <= {0, 255}
    assert len(list(out.rglob("*.png"))) == 3 * len(sizes)


def test_predict_goes_on_past_bad_files_and_names_them(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    owned_files(folder)
    whole = (folder / "grey.png").read_bytes()
    (folder / "truncated.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("not a picture")
    assert main(["predict", str(run), str(folder), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    for name in ("truncated.png", "empty.png", "text.png"):
        assert name in error
        assert not list(out.glob(f"{Path(name).stem}_*"))
    assert (out / "grey_mask.png").is_file()


def test_mistakes_of_predict(refused: Refused, run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    owned_files(folder)
    assert "nothing.png" in refused("predict", run, tmp_path / "nothing.png", "--out", tmp_path / "o")
    assert "nothing to predict" in refused("predict", run, "--out", tmp_path / "o")
    (tmp_path / "bare").mkdir()
    assert "no image" in refused("predict", run, tmp_path / "bare", "--out", tmp_path / "o")
    Image.new("L", (9, 9)).save(folder / "grey.jpg")
    assert "would both become" in refused("predict", run, folder, "--out", tmp_path / "o")
    assert "not a run folder" in refused("predict", tmp_path, folder, "--out", tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_predictions_table_marks_for_review_and_keeps_earlier_rows(
    run: Path, phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], refused: Refused
) -> None:
    images = sorted((phantom / "aster" / "images").glob("*.png"))
    out = tmp_path / "out"
    assert main(["predict", str(run), *map(str, images[:4]), "--out", str(out)]) == 0
    first = pd.read_csv(out / "predictions.csv")
    assert list(first.columns) == ["image", "mask", "expected_dice", "foreground", "refer"]
    assert first["expected_dice"].is_monotonic_increasing
    assert not first["refer"].any()
    for row in first.itertuples():
        mask = np.asarray(Image.open(out / str(row.mask)))
        assert row.foreground == pytest.approx((mask > 0).mean(), abs=1e-6)
    limit = min(1.0, first["expected_dice"].median() + 1e-6)  # some of them are marked, whatever they are
    capsys.readouterr()
    assert main(["predict", str(run), *map(str, images[2:]), "--out", str(out), "--refer-below", str(limit)]) == 0
    again = pd.read_csv(out / "predictions.csv").set_index("image")
    assert set(again.index) == set(map(str, images))
    now = [str(path) for path in images[2:]]
    assert again.loc[now, "refer"].any()
    assert (again.loc[now, "refer"] == (again.loc[now, "expected_dice"] < limit)).all()
    assert f"{int(again.loc[now, 'refer'].sum())} of {len(now)} below" in capsys.readouterr().out
    assert "between 0 and 1" in refused("predict", run, images[0], "--out", out, "--refer-below", "60")
    (out / "predictions.csv").write_text("mine")
    assert "predictions.csv" in refused("predict", run, images[0], "--out", out)
    assert (out / "predictions.csv").read_text() == "mine"


def test_variance_map_differs_from_the_probability_map(run: Path, phantom: Path, tmp_path: Path) -> None:
    image = str(next((phantom / "delta" / "images").glob("*.png")))
    maps, masks = {}, {}
    for kind in ("probability", "variance"):
        assert main(["predict", str(run), image, "--out", str(tmp_path / kind), "--confidence", kind]) == 0
        maps[kind] = np.asarray(Image.open(next((tmp_path / kind).glob("*_confidence.png"))))
        masks[kind] = next((tmp_path / kind).glob("*_mask.png")).read_bytes()
    assert (maps["probability"] != maps["variance"]).any()
    assert masks["probability"] == masks["variance"]


def test_masks_in_a_folder_of_their_own_are_not_predicted(run: Path, phantom: Path, tmp_path: Path) -> None:
    """Of a data set DOMAIN/images and DOMAIN/masks, given whole or as one domain."""
    from semidg.report.prediction_jobs import find_jobs

    images = {path for path in phantom.rglob("*.png") if path.parent.name == "images"}
    assert {job.image for job in find_jobs([phantom], tmp_path / "out")} == images
    delta = {job.image for job in find_jobs([phantom / "delta"], tmp_path / "out")}
    assert delta == {path for path in images if "delta" in path.parts}
    alone = find_jobs([phantom / "delta" / "masks"], tmp_path / "out")  # asked for, so it is meant
    assert len(alone) == len(delta)


def test_a_file_is_not_predicted_into_its_own_folder(tmp_path: Path) -> None:
    """Its NAME_mask.png there may be the truth."""
    from semidg.errors import ConfigError
    from semidg.report.prediction_jobs import find_jobs

    Image.new("L", (20, 20), 90).save(tmp_path / "a.png")
    with pytest.raises(ConfigError, match="is the folder of"):
        find_jobs([tmp_path / "a.png"], tmp_path)


def test_a_stopped_demo_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from semidg.experiment.run import Stopped
    from semidg.report import demo

    def stop(*arguments: object) -> None:
        raise Stopped(tmp_path, 5, 15)

    monkeypatch.setattr(demo, "run_demo", stop)
    assert main(["demo", "--out", str(tmp_path / "demo")]) == 143
    assert capsys.readouterr().err.startswith("semidg: stopped; delete")


def test_masks_beside_images_are_not_predicted(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "busi"
    folder.mkdir()
    for name in ("benign (1).png", "benign (1)_mask.png", "benign (1)_mask_1.png", "lone_mask.png"):
        Image.new("L", (20, 20), 90).save(folder / name)
    assert main(["predict", str(run), str(folder), "--out", str(tmp_path / "out")]) == 0
    assert {p.name for p in (tmp_path / "out").glob("*_overlay.png")} == {
        "benign (1)_overlay.png",
        "lone_mask_overlay.png",
    }


def test_index_and_split_and_training_from_its_lists(
    phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["index", str(phantom), "--out", str(tmp_path / "index.csv")]) == 0
    assert "24 images" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "index.csv", keep_default_na=False)
    assert list(table.columns) == [
        "id",
        "image",
        "masks",
        "domain",
        "class",
        "group",
        "width",
        "height",
        "row_mm",
        "column_mm",
    ]
    lists = tmp_path / "lists"
    arguments = [
        "split",
        str(phantom),
        "--out",
        str(lists),
        "--target",
        "cirrus",
        "--validation",
        "0.2",
        "--labelled",
        "0.5",
    ]
    assert main(arguments) == 0
    lines = (lists / "test.txt").read_text().splitlines()
    assert len(lines) == 6
    assert all(line.split("\t")[0].startswith("cirrus/images/") for line in lines)
    out = tmp_path / "run"
    options = [a for a in TINY if a not in ("--data.split.target", "delta")]
    training = ["train", "phantom", "--data.root", str(phantom), "--out", str(out), *options,
                "--data.split.lists", str(lists), "--method.name", "supervised"]  # fmt: skip
    assert main(training) == 2  # the preset holds out delta
    assert "its lists hold out 'cirrus', data.split.target is 'delta'" in capsys.readouterr().err
    assert main([*training, "--data.split.target", "cirrus"]) == 0
    assert set(pd.read_csv(out / "cases.csv")["domain"]) == {"cirrus"}
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["protocol"], summary["target"]) == ("leave_one_domain_out", "cirrus")
    untold = [*training[:-2], "--data.split.target", "None", "--trainer.max-steps", "1"]
    untold[untold.index(str(out))] = str(tmp_path / "untold")
    assert main(untold) == 0  # the lists themselves say what they hold out
    summary = json.loads((tmp_path / "untold" / "summary.json").read_text())
    assert (summary["protocol"], summary["target"]) == ("leave_one_domain_out", "cirrus")


def test_phantom_is_written_once_and_others_folders_are_kept(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    assert str(tmp_path) in refused("phantom", "--out", tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "keep"
    assert main(["phantom", "--out", str(tmp_path / "p"), "--images", "1", "--size", "64"]) == 0
    assert len(list((tmp_path / "p").rglob("images/*.png"))) == 4


def test_bad_data_sets_leave_no_run_folder(refused: Refused, phantom: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(phantom, root)
    out = tmp_path / "run"
    bad = root / "aster" / "masks" / "case_000.png"
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(bad)
    (root / "borea" / "images" / "case_001.png").write_bytes(b"\x89PNG broken")
    (root / "cirrus" / "images" / "case_002.png").unlink()
    message = refused("train", "phantom", "--data.root", root, "--out", out, *TINY)
    for name in ("aster/masks/case_000.png", "borea/images/case_001.png", "cirrus/masks/case_002.png"):
        assert name in message
    assert not out.exists()


def test_demo_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str], refused: Refused) -> None:
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out), "--steps", "2", "--images", "6"]) == 0
    text = capsys.readouterr().out
    assert "supervised" in text
    assert "dual_level" in text
    table = pd.read_csv(out / "table.csv")
    assert table["n"].tolist() == [6, 6]
    for method in ("supervised", "dual_level"):
        cases = pd.read_csv(out / method / "cases.csv")
        row = table[table["method"] == method].iloc[0]
        assert row["Dice %"] == pytest.approx(100 * cases["dice"].mean(), abs=1e-3)
    page = (out / "index.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    text = re.sub(r"base64,[A-Za-z0-9+/=]+", "", page)  # four letters of a picture may be anything
    assert "http" not in text.split("<body")[1].split("environment")[0]
    assert "supervised" in (out / "report.html").read_text()
    with Image.open(out / "comparison.png") as figure:
        assert figure.width > 300
    labelled = {(out / m / "split" / "labelled.txt").read_text() for m in ("supervised", "dual_level")}
    assert len(labelled) == 1  # the same labels for both
    assert "not empty" in refused("demo", "--out", out)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"GOMP_SPINCOUNT": "20000"}),
        ({"GOMP_SPINCOUNT": "5"}, {"GOMP_SPINCOUNT": "5"}),
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
    ],
)
def test_threads_wait_briefly_unless_the_user_said_how(
    given: dict[str, str], expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    wait_briefly()
    found = {name: os.environ[name] for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY") if name in os.environ}
    assert found == expected


def test_the_command_line_loads_pytorch_after_it_chose_how_threads_wait() -> None:
    script = "import semidg.cli, sys; assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
