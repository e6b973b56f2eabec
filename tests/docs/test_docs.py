"""The documentation is true: reference page, links, command lines, configurations."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import shlex
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from semidg.cli import VERBS
from semidg.cli.compare import split_overrides
from semidg.cli.options import base_config, parse, parse_with_config, value_of
from semidg.config_file import known_keys, parse_config, presets
from semidg.experiment.comparison_file import parse_comparison
from semidg.experiment.grid import expand
from semidg.method_config import METHOD_CONFIGS, BoundaryConfig, ContrastiveConfig
from semidg.methods import METHODS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    text = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading.strip()).lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    text = FENCE.sub("", page.read_text("utf-8"))
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


def commands(text: str) -> list[str]:
    """Command lines of semidg in fenced blocks and in inline code; ``...`` and VERB mark a pattern, not a command."""
    blocks = [body for language, body in FENCE.findall(text) if language in ("", "sh", "bash", "console")]
    lines = [line.strip() for body in blocks for line in body.replace("\\\n", " ").splitlines()]
    inline = re.findall(r"`(semidg [^\s`]+ [^`\n]+)`", FENCE.sub("", text))
    found = [line.removeprefix("$ ") for line in [*lines, *inline]]
    return [c for c in found if c.startswith("semidg ") and not re.search(r"\.\.\.|\bVERB\b|\[OPTIONS\]", c)]


def shown() -> list[tuple[str, str]]:
    pairs = [(command, name(page)) for page in PAGES for command in commands(page.read_text("utf-8"))]
    return [(page, command) for command, page in dict(pairs).items()]


@pytest.fixture(scope="module")
def make_reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "docs" / "make_reference.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_configuration_page_is_up_to_date(make_reference: ModuleType) -> None:
    page = (ROOT / "docs" / "reference" / "configuration.md").read_text("utf-8")
    assert page == make_reference.page(), "run: python docs/make_reference.py"


def test_configuration_page_has_every_key() -> None:
    page = (ROOT / "docs" / "reference" / "configuration.md").read_text("utf-8")
    assert [key for key in known_keys() if f"| `{key}` |" not in page] == []


def test_a_key_without_a_meaning_is_noticed(make_reference: ModuleType) -> None:
    field = type(parse_config({}, "test")).model_fields["data"]
    with pytest.raises(ValueError, match="has no docstring"):
        make_reference.meaning("", "no_such_key", field)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_relative_links_resolve(page: Path) -> None:
    broken = []
    for link in LINK.findall(FENCE.sub("", page.read_text("utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize(("page", "command"), shown(), ids=lambda text: text if text.startswith("semidg") else "")
def test_command_lines_parse(page: str, command: str) -> None:
    _, verb, *arguments = shlex.split(command, comments=True)
    if verb.startswith("--"):
        assert verb in ("--version", "--help")
        return
    assert verb in VERBS
    options = getattr(import_module(f"semidg.cli.{VERBS[verb][0]}"), f"{verb.capitalize()}Options")
    # --help ends with SystemExit(0); a wrong option with SystemExit(2), which is a failure here
    with contextlib.ExitStack() as stack:
        if "--help" in arguments:
            stack.enter_context(pytest.raises(SystemExit, match="0"))
        if verb == "train":
            preset = arguments[0] if arguments and not arguments[0].startswith("-") else presets()[0]
            assert preset in presets() or preset == "PRESET"
            start = base_config(preset if preset in presets() else presets()[0], value_of(arguments, "method.name"))
            parse_with_config(verb, options, start, arguments, "")
        else:
            if verb == "compare":
                arguments, overrides = split_overrides(arguments)
                assert set(overrides) <= set(known_keys())
            parse(verb, options, arguments, "")


def test_there_are_command_lines_of_every_verb() -> None:
    assert set(VERBS) <= {shlex.split(command)[1] for _, command in shown()}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_yaml_in_the_pages_is_a_configuration(page: Path) -> None:
    for language, body in FENCE.findall(page.read_text("utf-8")):
        if language != "yaml":
            continue
        values = yaml.safe_load(body)
        if "arms" in values:
            base = {"base": values["base"] if values["base"] in presets() else "phantom"}
            base |= {"targets": ["a", "b"]} if values.get("targets") == "all" else {}  # the data say which
            assert expand(parse_comparison(values | base, name(page)))
        else:
            parse_config(values, name(page))


METHOD_PAGES = ROOT / "docs" / "explanation" / "methods"
#: Headings of every page on a method, or on terms that methods may add.
SHAPE = [
    "Idea",
    "What is computed",
    "What we do differently",
    "What to expect",
    "When not to use it",
    "Switches",
]
#: Pages on terms, and the section of the configuration that each explains.
TERM_PAGES = {"boundary": BoundaryConfig, "contrastive": ContrastiveConfig}


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_has_a_page_that_names_its_keys_and_terms(method: str) -> None:
    text = (METHOD_PAGES / f"{method}.md").read_text("utf-8")
    keys = [key for key in METHOD_CONFIGS[method].model_fields if key != "name"]
    assert [key for key in keys if f"`method.{key}`" not in text] == []
    assert [term for term in METHODS[method].terms if f"`{term}`" not in text and term != "supervised"] == []
    assert f"`--method.name {method}`" in text
    for linking in ("docs/index.md", "docs/explanation/method.md"):
        assert f"methods/{method}.md)" in (ROOT / linking).read_text("utf-8")


@pytest.mark.parametrize("section", sorted(TERM_PAGES))
def test_pages_on_terms_name_their_keys(section: str) -> None:
    text = (METHOD_PAGES / f"{section}.md").read_text("utf-8")
    assert [key for key in TERM_PAGES[section].model_fields if f"`method.{section}.{key}`" not in text] == []


@pytest.mark.parametrize("page", sorted(METHOD_PAGES.glob("*.md")), ids=name)
def test_pages_on_methods_have_one_shape(page: Path) -> None:
    assert page.stem in METHODS or page.stem in TERM_PAGES
    text = page.read_text("utf-8")
    assert re.findall(r"^## (.+)$", FENCE.sub("", text), re.MULTILINE) == SHAPE
    assert commands(text), "no command line"


def test_readme_shows_the_two_commands() -> None:
    blocks = [body for _, body in FENCE.findall((ROOT / "README.md").read_text("utf-8"))]
    assert re.match(r"make demo\b.*\nmake test\b", blocks[0])
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in ("demo", "test", "lint", "clean"))
