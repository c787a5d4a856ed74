"""What a page says to type can be typed, and does what the page says."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from vqtrain.app.parts.build import Settings, build_module
from vqtrain.app.parts.compose import compose, read_command_line
from vqtrain.app.parts.grid import read_grid
from vqtrain.build import config_of, kinds
from vqtrain.cli import main

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
# Its codebook is not in the product, so its commands are run in a copy that has it.
WALKTHROUGH = ROOT / "docs/adding_a_codebook.md"
OTHERS = [page for page in PAGES if page != WALKTHROUGH]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    fenced = rf"^```{language}\n(.*?)^```$"
    return re.findall(fenced, page.read_text(), flags=re.MULTILINE | re.DOTALL)


def files_in(page: Path) -> dict[str, str]:
    """The code blocks that begin with a comment which names their file."""
    found = [block for language in ("python", "yaml") for block in blocks(page, language)]
    headed = [re.fullmatch(r"# (\S+/\S+\.\w+)\n(.*)", block, re.DOTALL) for block in found]
    return {match[1]: match[2] for match in headed if match is not None}


def lines_in(page: Path) -> list[list[str]]:
    """The words of each command line in the shell blocks of a page."""
    lines = [
        shlex.split(part, comments=True)
        for block in blocks(page, "sh")
        for line in block.replace("\\\n", " ").splitlines()
        for part in line.split("&&")
    ]
    return [line for line in lines if line]


def lines_within(page: Path) -> list[list[str]]:
    """The words of each command line in the text of a page."""
    within = re.findall(r"`((?:vqtrain|make|\.venv/bin/pytest) [^`\n]+)`", page.read_text())
    return [shlex.split(line) for line in within]


def commands(program: str, pages: list[Path]) -> Sequence[object]:
    """The arguments of a program wherever a page calls it, by itself or through another."""
    found = []
    for page in pages:
        for words in [*lines_in(page), *lines_within(page)]:
            names = [Path(word).name for word in words]
            if program in names and words[:2] != ["docker", "build"]:
                arguments = words[names.index(program) + 1 :]
                found.append(pytest.param(arguments, id=f"{name_of(page)}: {shlex.join(words)}"))
    assert found, f"no page calls {program}"
    return found


@pytest.mark.parametrize("words", commands("vqtrain", OTHERS))
def test_a_command_line_describes_a_run(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.cpu_count", lambda: 8)  # a page may be written for a larger machine
    for name, text in files_in(ROOT / "docs/configuration.md").items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    command, *rest = words
    assert command in kinds("command")
    if command == "train":
        config = compose("train", read_command_line(rest))
        config["loss"]["perceptual"] = {"kind": "none"}  # its network's weights may not be here
        build_module(config, Settings.of(config))
    if command == "sweep" and rest and "--help" not in rest:
        monkeypatch.setattr(
            "vqtrain.app.parts.grid.training_and_validation", lambda *_: (None, None)
        )
        own = yaml.safe_load(config_of("command", "sweep").read_text())
        grid_words = [word for word in rest if re.split(r"[.=]", word)[0] not in own]
        assert len(read_grid(read_command_line(grid_words), None, is_here=True).jobs) > 1


def test_the_grid_for_wandb_describes_runs() -> None:
    (text,) = blocks(ROOT / "docs/sweeps.md", "yaml")
    grid = yaml.safe_load(text)
    assert grid["command"] == ["vqtrain", "train", "${args_no_hyphens}"]
    known = grid["parameters"].items()
    words = [f"{key}={given.get('value', given.get('values', [''])[0])}" for key, given in known]
    config = compose("train", read_command_line(words))
    assert (config["codebook"]["kind"], config["codebook"]["size"]) == ("ema", 64)
    assert config["logger"]["kind"] == "wandb"


@pytest.mark.parametrize("words", commands("make", PAGES))
def test_a_target_is_in_the_makefile(words: list[str]) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert [word for word in words if "=" not in word and word not in targets] == []


@pytest.mark.parametrize("words", commands("pytest", OTHERS))
def test_a_pytest_command_chooses_something(words: list[str]) -> None:
    texts = []
    for word in words:
        if word.startswith("tests/"):
            path = ROOT / word
            files = path.rglob("test_*.py") if path.is_dir() else [path]
            texts += [file.read_text() for file in files]
    if "-m" in words:
        mark = words[words.index("-m") + 1]
        assert f"pytest.mark.{mark}" in "".join(texts) or not texts
    if "-k" in words:
        names = set(re.findall(r"\w+", words[words.index("-k") + 1])) - {"and", "or", "not"}
        tests = re.findall(r"^def (test_\w+)", "".join(texts), flags=re.MULTILINE)
        assert [name for name in names if not any(name in test for test in tests)] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []


SHOWN = [block for page in PAGES for block in blocks(page, "console")]


@pytest.mark.parametrize("block", SHOWN)
def test_an_answer_that_is_shown_is_the_answer(
    block: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line, answer = block.removeprefix("$ ").split("\n", maxsplit=1)
    program, *words = shlex.split(line)
    assert program == "vqtrain"
    main(words)
    printed = capsys.readouterr()
    assert printed.out + printed.err == answer


SNIPPETS = [
    pytest.param(block, id=f"{name_of(page)}-{number}")
    for page in OTHERS
    for number, block in enumerate(blocks(page, "python"))
]


@pytest.mark.slow
@pytest.mark.parametrize("snippet", SNIPPETS)
def test_a_python_snippet_runs_beside_a_finished_demo(
    snippet: str, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "experiment=demo", *tiny, "discriminator.num_layers=1"]) == 0
    exec(compile(snippet, "snippet", "exec"), {})


def copy_of_the_repository(folder: Path) -> Path:
    for name in ("configs", "tests", "vqtrain"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def run_in(folder: Path, *words: str, environment: Mapping[str, str]) -> tuple[int, str]:
    """Run a command as the page writes it, with the Python that runs the tests."""
    program, *arguments = words
    module = {"pytest": ["-m", "pytest", "-p", "no:cacheprovider"], "vqtrain": ["-m", "vqtrain"]}
    done = subprocess.run(
        [sys.executable, *module.get(Path(program).name, []), *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.slow
def test_the_walkthrough_of_a_codebook_works_and_edits_no_file(
    tiny: list[str], tmp_path: Path
) -> None:
    repository = copy_of_the_repository(tmp_path / "repository")
    files = files_in(WALKTHROUGH)
    assert sorted(files) == [
        "configs/codebook/levels.yaml",
        "tests/codebooks/test_levels.py",
        "vqtrain/codebooks/levels.py",
    ]
    for name, text in files.items():
        assert not (repository / name).exists()
        (repository / name).write_text(text)
    # PYTHONPATH comes before an installed vqtrain, so that the copy is what runs.
    environment = {"PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}
    run_tests, test_structure, train, load = lines_in(WALKTHROUGH)

    # The page runs all of the structure's; what the other components do is not at stake here.
    mine = [*test_structure, "-k", "levels or codebooks-codebook"]
    small = [word for word in tiny if not word.startswith("codebook.")]
    lines = [run_tests, mine, [*train, *small, "trainer.max_steps=2"]]
    with ThreadPoolExecutor() as pool:
        ends = pool.map(lambda line: run_in(repository, *line, environment=environment), lines)
        (_, tested), _, (_, trained) = checked = list(ends)
    assert [code for code, _ in checked] == [0, 0, 0], checked
    passed = re.search(r"(\d+) passed", tested)
    assert passed is not None
    assert int(passed[1]) > 20
    assert "625 codes" in trained
    code, printed = run_in(repository, *load, environment=environment)
    assert (code, printed) == (0, "Levels()\n")

    module = repository / "vqtrain/codebooks/levels.py"
    right = module.read_text()
    assert "% 2 == 0" in right
    module.write_text(right.replace("% 2 == 0", "% 2 == 1"))
    assert run_in(repository, *run_tests, environment=environment)[0] == 1
    module.write_text(right)

    python = [name for name in files if name.endswith(".py")]
    for line in ("python -m ruff check", "python -m ruff format --check"):
        code, printed = run_in(repository, *line.split(), *python, environment=environment)
        assert code == 0, printed
