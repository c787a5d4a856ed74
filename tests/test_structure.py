"""The shape of the repository, held as tests."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from vqtrain.build import CONTEXT, kinds, package_of, parameters_of, resolve

ROOT = Path(__file__).parents[1]
# Where the configs of each group's kinds are.
CONFIGS = {
    "encoder": "encoder",
    "codebook": "codebook",
    "decoder": "decoder",
    "latent_noise": "latent_noise",
    "discriminator": "discriminator",
    "loss": "loss/*",
    "adversarial": "loss/adversarial",
    "alignment": "loss/alignment",
    "format": "format",
    "metric": "metric",
    "launcher": "launcher",
}
# Keys that the run itself takes out of a group.
TERM = {"weight", "start_step", "ramp_steps"}
BALANCED = {*TERM, "adaptive", "min_ratio", "max_ratio"}
COMMON = {
    "loss": TERM,
    "adversarial": {*BALANCED, "layer", "feature_weight"},
    "alignment": BALANCED,
}
# Of the loss, but no terms that compare reconstructions.
OTHER_LOSSES = ("adversarial", "alignment", "balancer", "discriminator")
# ``none`` builds nothing, so it has no code.
COMPONENTS = [
    (group, path)
    for group, folder in CONFIGS.items()
    for path in sorted((ROOT / "configs").glob(f"{folder}/*.yaml"))
    if path.stem != "none" and (group == "loss") <= (path.parent.name not in OTHER_LOSSES)
]
MODULES = sorted((ROOT / "vqtrain").rglob("*.py"))
PYTHON = [
    *MODULES,
    *sorted((ROOT / "tests").rglob("*.py")),
    *sorted((ROOT / "scripts").rglob("*.py")),
]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def paths_named_in(page: Path) -> set[str]:
    """The paths in backticks; one with a placeholder, `configs/codebook/<word>.yaml`, is none."""
    return set(re.findall(r"`((?:configs|docs|scripts|tests|vqtrain)/[^`\s<]*)`", page.read_text()))


@pytest.mark.parametrize("group", CONFIGS)
def test_code_config_and_test_come_in_threes(group: str) -> None:
    config = {path.stem for each, path in COMPONENTS if each == group}
    tests = (ROOT / package_of(group).replace("vqtrain.", "tests.").replace(".", "/")).glob("*.py")
    assert config == set(kinds(group))
    assert config == {
        path.stem.removeprefix("test_") for path in tests if path.stem.startswith("test_")
    } - {"base", "contract", "parity", "properties"}


@pytest.mark.parametrize(("group", "path"), COMPONENTS, ids=str)
def test_a_component_config_names_every_argument_and_no_other(group: str, path: Path) -> None:
    settings = yaml.safe_load(path.read_text())
    settings.pop("defaults", None)  # Hydra's: what is filled in from other files
    kind = settings.pop("kind")
    assert kind == path.stem
    parameters = parameters_of(resolve(group, kind))
    common = COMMON.get(group, set())
    assert common <= set(settings)
    assert set(settings) - common == set(parameters).difference(CONTEXT)
    # A default is allowed for a constant that a paper fixes, and then it stands in both places.
    defaults = {
        name: parameter.default
        for name, parameter in parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    assert {name: settings[name] for name in defaults} == defaults


@pytest.mark.parametrize("path", [path for _, path in COMPONENTS], ids=name_of)
def test_a_component_config_stands_alone(path: Path) -> None:
    assert "${" not in path.read_text()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_stays_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("path", PYTHON, ids=name_of)
def test_a_file_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize("path", PYTHON, ids=name_of)
def test_annotations_stay_checkable_at_run_time(path: Path) -> None:
    imports = [
        node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ImportFrom)
    ]
    assert [node.lineno for node in imports if node.module == "__future__"] == []


@pytest.mark.parametrize(
    "path",
    [path for path in MODULES if path.name == "__init__.py" and path.parent.name != "vqtrain"],
    ids=name_of,
)
def test_a_package_file_holds_a_docstring_and_no_code(path: Path) -> None:
    assert len(ast.parse(path.read_text()).body) == 1


def test_code_and_configs_are_ascii() -> None:
    files = [*MODULES, *(ROOT / "configs").rglob("*.yaml")]
    assert [name_of(path) for path in files if not path.read_bytes().isascii()] == []


def test_no_floor_imports_from_above() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_path_a_page_names_exists(page: Path) -> None:
    assert [path for path in paths_named_in(page) if not any(ROOT.glob(path))] == []


def test_the_tour_names_every_package() -> None:
    packages = {name_of(path.parent) for path in (ROOT / "vqtrain").glob("*/__init__.py")}
    tour = {path.rstrip("/") for path in paths_named_in(ROOT / "docs/architecture.md")}
    assert packages - tour == set()
