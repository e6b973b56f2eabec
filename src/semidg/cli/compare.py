"""semidg compare."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import tyro
import yaml

from semidg.cli.grid_progress import GridProgress, duration
from semidg.cli.options import parse
from semidg.config import ExperimentConfig
from semidg.config_file import dump_config, known_keys, load_config
from semidg.errors import ConfigError

if TYPE_CHECKING:
    from semidg.experiment.comparison_file import Comparison
    from semidg.experiment.executors import Executor
    from semidg.experiment.grid import Cell
    from semidg.experiment.known import Known

DESCRIPTION = """Train every arm at every labelled fraction, seed and held-out domain, and write the tables.

Done runs are skipped, half-done ones resumed; a failed run does not stop the others. Say it again to continue, or
after adding arms or seeds to the file.

  arms.yaml     base: busi-lite
                labelled: [0.05, 0.25]
                seeds: [0, 1, 2]
                arms:
                  supervised: {}
                  dual_level: {}
                  no CutMix: {method.name: dual_level, method.strong.cutmix: 0}
                  all labels: {method.name: supervised, labelled: [1.0]}

  semidg compare arms.yaml --out comparison --data.root Dataset_BUSI_with_GT --dry-run

The same without a file: semidg compare busi-lite --methods supervised epl --seeds 0 1 2 --out comparison

Any dotted key of the configuration is an option for all runs, such as --data.root FOLDER or --trainer.max-steps 1000.
--part validation chooses settings: it scores and tables the validation part only, and the test part stays unseen.
--known FOLDER takes over the scores of runs made on another machine, or published beside a table."""


@dataclass(frozen=True)
class CompareOptions:
    """Options of compare."""

    config: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="CONFIG")] = None
    """A comparison file; or, with --methods, a preset or an experiment's YAML file. Default: OUT/comparison.yaml."""
    out: Path | None = None
    """Folder of the comparison to make or to continue."""
    methods: tuple[str, ...] = ()
    """Without a comparison file: the arms, each a method with its defaults; the first is the baseline."""
    labelled: tuple[float, ...] = ()
    """Without a comparison file: labelled fractions."""
    seeds: tuple[int, ...] = ()
    """Without a comparison file: seeds."""
    targets: tuple[str, ...] = ()
    """Without a comparison file: domains to hold out, each in runs of its own; none for none; all for every domain of
    the data that has masks, in turn."""
    jobs: int | None = None
    """Runs at once, which share the cores; default: 1, with ray as many as fit."""
    executor: Literal["local", "ray"] = "local"
    """local: processes of this machine; ray: tasks of a Ray cluster with a shared file system."""
    cpus_per_run: int = 1
    """With ray: CPUs a run."""
    gpus_per_run: float = 0.0
    """With ray: GPUs a run."""
    ray_address: str | None = None
    """With ray: the cluster; default: RAY_ADDRESS, or else this machine alone."""
    part: Literal["test", "validation"] = "test"
    """Part that is scored and shown."""
    known: tuple[Path, ...] = ()
    """Folders with runs.json.gz and cases.csv.gz of comparisons made elsewhere: the scores of runs with the same
    configuration (if need be in another precision) are taken over from there, and these runs are not made again."""
    dry_run: bool = False
    """Show the runs, what is done, and how long the rest will take; write nothing."""


def compare(arguments: Sequence[str]) -> int:
    """Make the runs that are not done, and the tables; the exit code is 1 if a run failed."""
    own, overrides = split_overrides(arguments)
    options = parse("compare", CompareOptions, own, DESCRIPTION)
    if options.out is None:
        raise ConfigError("--out is not set; say where the comparison goes: --out comparison")
    for name in ("jobs", "cpus_per_run"):
        if (number := getattr(options, name)) is not None and number < 1:
            raise ConfigError(f"--{name.replace('_', '-')} {number}: must be 1 or more")
    if options.gpus_per_run < 0:
        raise ConfigError(f"--gpus-per-run {options.gpus_per_run:g}: must be 0 or more")
    from semidg.experiment.compare import refuse_other_configurations, refuse_without_part
    from semidg.experiment.comparison_file import dump_comparison
    from semidg.experiment.grid import expand
    from semidg.experiment.known import identity, read_known, take_over
    from semidg.experiment.targets import resolve_targets
    from semidg.files import locked, write_text

    comparison, domains = resolve_targets(comparison_of(options, overrides))
    if domains is not None:
        print(f"domains held out in turn: {', '.join(domains.labelled)}")
        if domains.unlabelled:
            print(f"without masks, and so in training only: {', '.join(domains.unlabelled)}")
    cells = expand(comparison)
    if rootless := next((cell for cell in cells if cell.config.data.root is None), None):
        raise ConfigError(f"{rootless.name}: data.root is not set; say where the data set is: --data.root FOLDER")
    refuse_without_part(cells, options.part)
    known = read_known(options.known, options.part)
    if options.dry_run:
        return _show(cells, options, known)
    with locked(options.out, "another comparison, or a run that one has started,") as lock:
        refuse_other_configurations(cells, options.out)
        write_text(options.out / "comparison.yaml", dump_comparison(comparison))
        if known:
            taken = take_over(known, cells, options.out, options.part)
            other = sum(identity(cell.config) not in known for cell in taken)
            print(
                f"{len(taken)} of the {len(known)} known runs are of this comparison and were taken over"
                + (f", {other} of them in another precision (runs.csv says which)" if other else "")
            )
        return _make(comparison, cells, options, lock)


def comparison_of(options: CompareOptions, overrides: dict[str, Any]) -> Comparison:
    """The comparison that the command line asks for."""
    from semidg.experiment.comparison_file import is_comparison, load_comparison, parse_comparison

    assert options.out is not None
    source = options.config or str(options.out / "comparison.yaml")
    quick = {name: getattr(options, name) for name in ("methods", "labelled", "seeds", "targets")}
    given = [name for name, value in quick.items() if value]
    if options.config is None and not Path(source).is_file():
        raise ConfigError(
            f"say what to compare: a comparison file, or a preset with --methods; {options.out} has no comparison yet"
        )
    if is_comparison(source):
        if given:
            raise ConfigError(f"{source}: has a grid of its own; set {given[0]} there, in place of --{given[0]}")
        comparison = load_comparison(Path(source))
        for name, arm in comparison.arms.items():
            if both := sorted(overrides.keys() & arm.set.keys()):
                raise ConfigError(f"--{both[0]}: the arm {name!r} sets it; change it in {source}")
        return comparison.model_copy(update={"overrides": comparison.overrides | overrides})
    if not options.methods:
        load_config(source)  # a typo in its name is the likelier mistake
        raise ConfigError(f"{source}: has no arms; name them: --methods supervised dual_level")
    values: dict[str, Any] = {
        "name": load_config(source).name,
        "base": yaml.safe_load(dump_config(load_config(source))),
        "overrides": overrides,
        "arms": {method: {"method.name": method} for method in options.methods},
    }
    values |= {name: quick[name] for name in ("labelled", "seeds") if quick[name]}
    if options.targets == ("all",):
        values["targets"] = "all"
    elif options.targets:
        values["targets"] = [None if target.lower() == "none" else target for target in options.targets]
    return parse_comparison(values, "options")


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """The arguments of the verb itself, and the dotted keys of the configuration with their values.

    ``--a.b V`` is V as YAML reads it, ``--a.b V W`` a list, ``--a.b`` true and ``--a.no-b`` false.
    """
    own: list[str] = []
    found: dict[str, list[str]] = {}
    values = own
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name.startswith("--") and "." in name:
            values = found.setdefault(name[2:].replace("-", "_"), [])
            values.clear()
            values += [value] if equals else []
        elif argument.startswith("--"):
            own.append(argument)
            values = own
        else:
            values.append(argument)
    overrides: dict[str, Any] = {}
    for key, texts in found.items():
        head, _, last = key.rpartition(".")
        positive = f"{head}.{last.removeprefix('no_')}"
        if not texts and positive != key and positive in known_keys():
            overrides[positive] = False
        elif not texts:
            overrides[key] = True
        else:
            parsed = [_value(key, text) for text in texts]
            one = len(parsed) == 1 and (isinstance(parsed[0], list) or not _takes_several(key))
            overrides[key] = parsed[0] if one else parsed
    return own, overrides


def _kind(key: str) -> Any:
    """The annotation of a dotted key; None where it has none of its own."""
    kind: Any = ExperimentConfig
    for part in key.split("."):
        info = getattr(kind, "model_fields", {}).get(part)
        kind = info.annotation if info else None
    return kind


def _takes_several(key: str) -> bool:
    """Whether the key takes a list of any length."""
    kind = _kind(key)
    return get_origin(kind) is tuple and ... in get_args(kind)


def _value(key: str, text: str) -> Any:
    """As YAML reads it, but a word stays one where the key takes words: a folder may be called 2024."""
    kind = _kind(key)
    kinds = (kind, *get_args(kind))
    if text == "None":
        return None
    if str in kinds or Path in kinds or text in kinds:
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _show(cells: Sequence[Cell], options: CompareOptions, known: Mapping[str, Known]) -> int:
    from semidg.experiment.compare import refuse_other_configurations, run_folder, seconds_left, status
    from semidg.experiment.known import is_open, match

    assert options.out is not None
    refuse_other_configurations(cells, options.out)
    counts: dict[str, int] = {"done": 0, "half-done": 0, "left": 0}
    rest, matched = [], match(known, cells)
    for cell in cells:
        now = status(cell, options.out, options.part)
        run = matched.get(cell.name)
        if now.state != "done" and run and is_open(run_folder(options.out, cell), options.part, run):
            counts["known"] = counts.get("known", 0) + 1
            print(f"known      {cell.name}")
            continue
        rest.append(cell)
        counts[now.state] += 1
        steps = cell.config.trainer.max_steps
        far = "trained, to be scored" if now.step >= steps else f"step {now.step} of {steps}"
        print(f"{now.state:<9}  {cell.name}" + (f" ({far})" if now.state == "half-done" else ""))
    left = seconds_left(rest, options.out, options.part, options.jobs or 1)
    print(f"{len(cells)} runs: {', '.join(f'{n} {state}' for state, n in counts.items())}; {duration(left)}")
    return 0


def _make(comparison: Comparison, cells: Sequence[Cell], options: CompareOptions, lock: int | None) -> int:
    from semidg.experiment.compare import run_grid, status
    from semidg.report.comparison_files import write_tables

    assert options.out is not None
    out = options.out

    def tables() -> str:
        if options.part == "test":  # also where the validation part has been scored before
            write_tables(comparison.name, comparison.against, cells, out, "validation")
        return write_tables(comparison.name, comparison.against, cells, out, options.part)

    tables()
    executor = _executor(options, lock)
    if options.executor == "local":
        _warn_of_slow([cell for cell in cells if status(cell, out, options.part).state != "done"])
    with GridProgress(cells, out, options.part, executor.slots, tables) as progress:
        outcome = run_grid(cells, out, executor, options.part, progress)
    print(tables())
    for name, error in outcome.failed.items():
        print(f"semidg: failed: {name}: {error}", file=sys.stderr)
    ending = "" if options.part == "test" else f"-{options.part}"
    if (out / f"table{ending}.md").is_file():
        print(f"tables: {out / f'table{ending}.md'} (.csv, .tex)   every case: {out / f'cases{ending}.csv.gz'}")
        print(f"with the figure, in a browser: {out / f'index{ending}.html'}")
    goes_on = shlex.join(["semidg", "compare", *again(options)])
    if outcome.signal is not None:
        print(f"semidg: stopped; continue with: {goes_on}", file=sys.stderr)
        return 128 + outcome.signal
    if outcome.failed:
        print(f"semidg: {len(outcome.failed)} runs failed; try them again: {goes_on}", file=sys.stderr)
    return 1 if outcome.failed else 0


def again(options: CompareOptions) -> list[str]:
    """The arguments with which the same comparison goes on."""
    found = ["--out", str(options.out)]
    default = CompareOptions()
    for name in ("part", "jobs", "executor", "cpus_per_run", "gpus_per_run", "ray_address"):
        value = getattr(options, name)
        if value != getattr(default, name):
            found += [f"--{name.replace('_', '-')}", f"{value:g}" if isinstance(value, float) else str(value)]
    return found + (["--known", *map(str, options.known)] if options.known else [])


def _warn_of_slow(cells: Sequence[Cell]) -> None:
    from semidg.experiment.device import choose_device, slow_precision

    for precision, accelerator in {(c.config.trainer.precision, c.config.trainer.accelerator) for c in cells}:
        with contextlib.suppress(ConfigError):  # of a device that is not there; that is for the run to say
            if text := slow_precision(precision, choose_device(accelerator)):
                print(f"semidg: warning: {text}", file=sys.stderr)


def _executor(options: CompareOptions, lock: int | None) -> Executor:
    if options.executor == "ray":
        from semidg.experiment.ray_executor import RayExecutor

        return RayExecutor(
            options.jobs, cpus=options.cpus_per_run, gpus=options.gpus_per_run, address=options.ray_address
        )
    from semidg.experiment.device import share_of_cores
    from semidg.experiment.executors import LocalExecutor

    jobs = options.jobs or 1
    environment = share_of_cores(jobs) if jobs > 1 else {}  # by the environment: no part of the configuration
    return LocalExecutor(jobs, environment, lock)
