"""From a comparison file to the configurations of its runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from comparison_support import comparison
from semidg.config_file import load_config
from semidg.errors import ConfigError
from semidg.experiment.comparison_file import (
    Comparison,
    dump_comparison,
    is_comparison,
    load_comparison,
    parse_comparison,
)
from semidg.experiment.grid import differing_keys, expand, folder_name
from tests_support import tiny_config

FRACTIONS = st.lists(st.sampled_from([0.05, 0.1, 0.25, 0.5, 1.0]), min_size=1, max_size=3, unique=True)
SEEDS = st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True)
TARGETS = st.lists(st.sampled_from([None, "alpha", "delta"]), min_size=1, max_size=3, unique=True)
CUTMIX = {"method.name": "dual_level", "method.strong.cutmix": 0}
ARMS: dict[str, Any] = {"supervised": {}, "dual_level": {}, "no CutMix": CUTMIX}


def write(folder: Path, values: dict[str, Any]) -> Path:
    path = folder / "arms.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


@settings(max_examples=25)
@given(FRACTIONS, SEEDS, TARGETS)
def test_every_arm_runs_everywhere_once_with_seeds_outermost(
    labelled: list[float], seeds: list[int], targets: list[str | None]
) -> None:
    cells = expand(comparison(ARMS, labelled=labelled, seeds=seeds, targets=targets))
    assert [(c.seed, c.target, c.labelled, c.arm) for c in cells] == [
        (s, t, f, a) for s in seeds for t in targets for f in labelled for a in ARMS
    ]
    assert len({cell.name for cell in cells}) == len(cells)
    for cell in cells:
        assert (cell.config.seed, cell.config.labelled, cell.config.data.split.target) == (
            cell.seed, cell.labelled, cell.target,
        )  # fmt: skip


@given(st.text(min_size=1, max_size=90), st.sampled_from([0.05, 1.0]), st.none() | st.text(min_size=1, max_size=20))
def test_folder_names_are_safe_everywhere(arm: str, labelled: float, target: str | None) -> None:
    name = folder_name(arm, labelled, target, 3)
    assert re.fullmatch(r"[A-Za-z0-9_+=][A-Za-z0-9._+=-]*", name)
    assert len(name) < 250
    assert name.endswith("_seed-3")


def test_folder_names_tell_letters_that_are_lost_apart() -> None:
    names = ["a/b", "无", "有", "a", "x" * 100, "x" * 101, "..", "/"]
    assert len({folder_name(name, 0.25, None, 0) for name in names}) == len(names)
    assert folder_name("no CutMix / 2", 0.25, "delta", 0) == "no-CutMix-2_labelled-0.25_target-delta_seed-0"


def test_an_arm_replaces_parts_of_the_grid() -> None:
    arms = {"supervised": {}, "ceiling": {"method.name": "supervised", "labelled": [1.0], "seeds": [0, 5]}}
    cells = expand(comparison(arms, labelled=[0.25, 0.5], seeds=[0, 1]))
    assert [(c.seed, c.labelled, c.arm) for c in cells] == [
        (0, 0.25, "supervised"), (0, 0.5, "supervised"), (0, 1.0, "ceiling"),
        (1, 0.25, "supervised"), (1, 0.5, "supervised"), (5, 1.0, "ceiling"),
    ]  # fmt: skip


def test_an_arm_named_like_a_method_is_that_method_with_its_defaults() -> None:
    base = tiny_config(Path("data"))
    arms = {"supervised": None, "dual_level": {}, "epl": {"method.threshold": 0.7}, "plain": {}}
    by_arm = {cell.arm: cell.config for cell in expand(comparison(arms))}
    assert by_arm["supervised"].method.name == "supervised"
    assert by_arm["dual_level"] == by_arm["plain"] == base  # the base's own method keeps what the base sets
    assert by_arm["epl"].method.name == "epl"
    assert "method.name" in differing_keys(by_arm["epl"], base)
    assert by_arm["epl"].method.threshold == 0.7  # type: ignore[union-attr]


def test_overrides_hold_for_every_arm_and_arms_for_themselves() -> None:
    arms = {"a": {"trainer.max_steps": 9}, "b": {"set": {"optimiser.lr": 0.5}}}
    one, other = expand(comparison(arms, overrides={"trainer.max_steps": 4, "data.size": 64}))
    assert (one.config.trainer.max_steps, other.config.trainer.max_steps) == (9, 4)
    assert one.config.data.size == other.config.data.size == 64
    assert other.config.optimiser.lr == 0.5


@pytest.mark.parametrize(
    ("arms", "grid", "message"),
    [
        ({"a": {"trainer.max_step": 3}}, {}, r"arm a: unknown key 'trainer.max_step'; .* 'trainer.max_steps'"),
        ({"a": {"trainer.max_steps": "many"}}, {}, r"arm a: trainer.max_steps: .*'many'"),
        ({"a": {"method.name": "dual"}}, {}, "arm a: unknown method 'dual'; did you mean 'dual_level'"),
        ({"supervised": {"method.threshold": 0.5}}, {}, "the method supervised has no key 'method.threshold'"),
        ({"supervised": {}}, {"overrides": {"method.threshold": 0.5}}, r"overrides: .* no key .*\(arm supervised\)"),
        ({"a": {"data.split.target": "x"}}, {}, "'data.split.target' belongs to the grid: set targets"),
        ({"a": {}}, {"overrides": {"seed": 3}}, "'seed' belongs to the grid: set seeds"),
        ({"a b": {}, "a-b": {}}, {}, "arms 'a b' and 'a-b' would share the run folder"),
        ({"A": {}, "a": {}}, {}, "arms 'A' and 'a' would share"),
        ({"a": {}}, {"targets": ["x y", "x-y"]}, r"two cells of the arm 'a' \(target 'x y' and 'x-y'\)"),
    ],
)
def test_what_an_arm_cannot_have_is_named(arms: dict[str, Any], grid: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        expand(comparison(arms, **grid))


def test_all_wrong_arms_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        expand(comparison({"a": {"data.sise": 3}, "b": {"data.size": 0}, "c": {}}))
    assert [line.split(":")[0] for line in str(error.value).splitlines()] == ["arm a", "arm b"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sedes": [1]}, "unknown key 'sedes'; the nearest known key is 'seeds'"),
        ({"arms": {"a": {"labeled": [1.0]}}}, "unknown key 'arms.a.labeled'; the nearest known key is 'labelled'"),
        ({"arms": {"a": {"labelled": [0]}}}, r"arms.a.labelled"),
        ({"arms": {"a": {"set": {"data.size": 1}, "data.size": 2}}}, "data.size stands in set and beside it"),
        ({"arms": {}}, "arms"),
        ({"arms": {" a": {}}}, "arm ' a': a name needs a letter"),
        ({"baseline": "b"}, "baseline 'b' is no arm; the arms are a"),
        ({"seeds": [1, 1]}, "seeds names a value twice"),
        ({"seeds": []}, "seeds"),
        ({"base": "busi-lit"}, "base: .*did you mean 'busi-lite'"),
    ],
)
def test_mistakes_in_the_file_are_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = write(tmp_path, {"base": "phantom", "arms": {"a": {}}} | change)
    with pytest.raises(ConfigError, match=message) as error:
        load_comparison(path)
    assert "arms.yaml" in str(error.value)


def test_a_base_is_a_preset_or_a_file_beside_the_comparison(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("labelled: 0.3\nseed: 4\n")
    found = load_comparison(write(tmp_path, {"base": "base.yaml", "arms": {"a": {}}}))
    (cell,) = expand(found)
    assert (cell.labelled, cell.seed, cell.target) == (0.3, 4, None)
    (cell,) = expand(load_comparison(write(tmp_path, {"base": "phantom", "arms": {"a": {}}})))
    assert cell.config == load_config("phantom")
    assert cell.target == "delta"
    (cell,) = expand(load_comparison(write(tmp_path, {"base": "phantom", "targets": [None], "arms": {"a": {}}})))
    assert cell.target is None


def test_the_written_comparison_is_read_back_unchanged(tmp_path: Path) -> None:
    found = comparison(
        ARMS | {"轻/量": {"labelled": [1.0]}}, seeds=[1, 2], targets=[None, "delta"], baseline="dual_level"
    )
    path = tmp_path / "comparison.yaml"
    path.write_text(dump_comparison(found))
    again = load_comparison(path)
    assert again == found
    assert expand(again) == expand(found)
    assert again.against == "dual_level"
    assert is_comparison(str(path))
    assert not is_comparison("phantom")


def test_a_comparison_needs_a_base_and_arms() -> None:
    with pytest.raises(ConfigError, match="test: base is missing\ntest: arms is missing"):
        parse_comparison({}, "test")
    assert Comparison.model_fields.keys() >= {"base", "arms"}


def test_a_precision_needs_no_quotes(tmp_path: Path) -> None:
    """32 is a number in YAML: in a configuration, an override and an arm."""
    file = tmp_path / "own.yaml"
    file.write_text("trainer: {precision: 32}\n")
    assert load_config(file).trainer.precision == "32"
    both: dict[str, Any] = {"supervised": {}, "bf16": {"method.name": "supervised", "trainer.precision": "bf16"}}
    values: dict[str, Any] = {"name": "n", "base": "phantom", "overrides": {"data.root": "r"}}
    values["arms"] = {"supervised": {"trainer.precision": 32}}
    assert [c.config.trainer.precision for c in expand(load_comparison(write(tmp_path, values)))] == ["32"]
    values |= {"overrides": {"data.root": "r", "trainer.precision": 32}, "arms": both}
    assert {c.arm: c.config.trainer.precision for c in expand(load_comparison(write(tmp_path, values)))} == {
        "supervised": "32", "bf16": "bf16",
    }  # fmt: skip
    file.write_text("trainer: {precision: 16}\n")
    with pytest.raises(ConfigError, match=r"trainer\.precision.*'32', 'bf16', 'fp16' or 'auto'"):
        load_config(file)


def test_a_key_that_stands_twice_is_refused_where_one_would_be_lost(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("trainer: {max_steps: 5}\ndata: {size: 64}\ntrainer: {eval_every: 5}\n")
    with pytest.raises(ConfigError, match=r"own\.yaml: not valid YAML: the key trainer stands twice.*line 3"):
        load_config(file)
    file.write_text("base: phantom\narms:\n  epl: {}\n  epl: {method.threshold: 0.9}\n")
    with pytest.raises(ConfigError, match=r"own\.yaml.*the key epl stands twice"):
        load_comparison(file)
    file.write_text("trainer: {<<: {max_steps: 5}, max_steps: 6}\n")
    assert load_config(file).trainer.max_steps == 6
    file.write_text("trainer: &t {<<: {max_steps: 5}, max_steps: 6}\nname: x\n")
    assert load_config(file).trainer.max_steps == 6  # a merge key is there to be overruled
