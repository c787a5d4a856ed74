"""What a page says to type can be typed, and does what the page says."""

import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import yaml

from vqtrain import Tokenizer
from vqtrain.app.parts.build import build_module
from vqtrain.app.parts.compose import compose, read_command_line
from vqtrain.app.parts.grid import read_grid
from vqtrain.app.parts.settings import Settings
from vqtrain.build import config_of, kinds
from vqtrain.cli import main
from vqtrain.errors import CheckpointError
from vqtrain.weights import without_downloads

ROOT = Path(__file__).parents[1]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "docs").rglob("*.ipynb")),
]
# Its parts are not in the product, so its commands are run where they are.
WALKTHROUGH = ROOT / "docs/extending.md"
OTHERS = [page for page in PAGES if page != WALKTHROUGH]


def some_tokenizer() -> Tokenizer:
    """A small one, for commands that start from one."""
    config = compose("train", read_command_line(["encoder.channels=8", "decoder.channels=8"]))
    return build_module(config, Settings.of(config)).tokenizer


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
    """The arguments of each call of a program on a page, by itself or through another, once."""
    found: dict[tuple[str, ...], object] = {}
    for page in pages:
        for words in [*lines_in(page), *lines_within(page)]:
            names = [Path(word).name for word in words]
            if program in names and words[:2] != ["docker", "build"]:
                arguments = words[names.index(program) + 1 :]
                case = pytest.param(arguments, id=f"{name_of(page)}: {shlex.join(words)}")
                found.setdefault(tuple(arguments), case)
    assert found, f"no page calls {program}"
    return [*found.values()]


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
    for word in rest:
        if word.startswith("init_from="):
            some_tokenizer().save_pretrained(tmp_path / word.removeprefix("init_from="))
    if command == "train":
        config = compose("train", read_command_line(rest))
        config["loss"]["perceptual"] = {"kind": "none"}  # its network's weights may not be here
        with torch.device("meta"), without_downloads():  # as large as the page says
            build_module(config, Settings.of(config))
    if command == "sweep" and rest and "--help" not in rest:
        monkeypatch.setattr(
            "vqtrain.app.parts.grid.training_and_validation", lambda *_: (None, None)
        )
        own = yaml.safe_load(config_of("command", "sweep").read_text())
        grid_words = [
            re.sub(r"^(seed=\d+,\d+),[\d,]+", r"\1", word)  # two seeds are as good as eight
            for word in rest
            if re.split(r"[.=]", word)[0] not in own
        ]
        with torch.device("meta"):
            grid = read_grid(read_command_line(grid_words), None, is_here=True)
        assert len(grid.jobs) > 1


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
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(([^)#\s]+)", text)
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


@pytest.fixture(scope="module")
def finished_demo(tiny_run: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the demo has been trained, with tiny networks."""
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["train", "experiment=demo", *tiny_run, "discriminator.num_layers=1"]) == 0
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning:lightning")  # of torch's, in its loops
@pytest.mark.parametrize("snippet", SNIPPETS)
def test_a_python_snippet_runs_beside_a_finished_demo(
    snippet: str,
    finished_demo: Path,
    tiny: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(finished_demo, tmp_path, symlinks=True, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    trained = snippet.replace('"experiment=demo"', '"experiment=demo", *TINY')
    exec(compile(trained, "snippet", "exec"), {"TINY": [*tiny, "discriminator.num_layers=1"]})


@pytest.fixture
def _strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package of the page on extending, where the page is followed."""
    for name, text in files_in(WALKTHROUGH).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_parts.parts", raising=False)
    monkeypatch.delitem(sys.modules, "my_parts", raising=False)


@pytest.mark.filterwarnings("ignore::FutureWarning:lightning")  # of torch's, in its loops
@pytest.mark.usefixtures("_strangers")
@pytest.mark.parametrize("size", [(64,), (4, 16, 16)], ids=["sounds", "clips"])
def test_strangers_parts_train_save_load_encode_and_decode(
    size: tuple[int, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert files_in(WALKTHROUGH).keys() == {"my_parts/parts.py"}
    (script,) = [block for block in blocks(WALKTHROUGH, "python") if "RandomSamples" in block]
    assert "SIZE = (64,)" in script
    exec(compile(script.replace("SIZE = (64,)", f"SIZE = {size}"), "train.py", "exec"), {})
    shapes, error = capsys.readouterr().out.splitlines()[-2:]
    assert shapes == f"{tuple(length // 2 for length in size)} {[2, 1, *size]}"
    # Uniform numbers of 256 differ by 64 from their mean on average, and by 128 from an end.
    (levels,) = re.findall(r"error: (\d+) of 255 levels", error)
    assert 50 < int(levels) <= 128
    with pytest.raises(CheckpointError, match=r"add allow=\[my_parts\]"):
        Tokenizer.from_pretrained("my-tokenizer")


@pytest.mark.slow
@pytest.mark.usefixtures("_strangers")
def test_strangers_parts_train_from_the_command_line(tiny: list[str]) -> None:
    small = [word for word in tiny if word.startswith(("data.", "trainer."))]
    lines = [words for _, command, *words in lines_in(WALKTHROUGH) if command == "train"]
    for number, words in enumerate(lines):
        assert main(["train", *words, *small, f"run_dir={number}"]) == 0
        tokenizer = Tokenizer.from_pretrained(str(number), allow=["my_parts"])
        assert tokenizer.training_summary["step"] == 4
    assert len(lines) == 3


@pytest.mark.usefixtures("_strangers")
def test_strangers_parts_keep_their_contracts_and_are_chosen_as_words(
    capsys: pytest.CaptureFixture[str],
) -> None:
    checked, built = 0, 0
    for program, command, *words in lines_in(WALKTHROUGH):
        assert program == "vqtrain"
        if command == "doctor":
            code = main([command, *words])
            printed = capsys.readouterr()
            assert code == 0, printed.out + printed.err
            assert printed.out.startswith("ok ")
            checked += 1
        else:
            config = compose(command, read_command_line(words))
            build_module(config, Settings.of(config))
            built += 1
    assert (checked, built) == (6, 3)
