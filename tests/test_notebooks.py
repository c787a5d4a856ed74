"""The notebooks run from their first cell to their last."""

import os
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from vqtrain import Tokenizer

NOTEBOOKS = Path(__file__).parents[1] / "docs/notebooks"


def read(name: str) -> NotebookNode:
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    nbformat.validate(notebook)
    return notebook


def cells_of(notebook: NotebookNode, tag: str) -> list[int]:
    tagged = enumerate(notebook.cells)
    return [n for n, cell in tagged if tag in cell.metadata.get("tags", [])]


def printed_by(notebook: NotebookNode) -> str:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.text for output in outputs if output.output_type == "stream")


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_is_kept_as_nobody_has_run_it(path: Path) -> None:
    cells = [cell for cell in read(path.name).cells if cell.cell_type == "code"]
    assert [(cell.outputs, cell.execution_count) for cell in cells] == [([], None)] * len(cells)


@pytest.mark.slow
def test_a_tokenizer_is_trained_looked_at_exported_and_loaded(
    tiny_run: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    notebook = read("train_a_tokenizer.ipynb")
    [install], [parameters] = (cells_of(notebook, tag) for tag in ("install", "parameters"))
    source, *small = tiny_run
    values = {
        "IMAGES": source.removeprefix("data.train="),
        "STEPS": 4,
        "OVERRIDES": " ".join(["discriminator.num_layers=1", *small]),
    }
    known = re.findall(r"^([A-Z]+) = ", notebook.cells[parameters].source, flags=re.MULTILINE)
    assert [name for name in values if name not in known] == []
    given = "\n".join(f"{name} = {value!r}" for name, value in values.items())
    notebook.cells.insert(parameters + 1, new_code_cell(given))
    del notebook.cells[install]
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources=resources).execute()
    printed = printed_by(notebook)
    # 300 x 448 px of the picture in tokens of 4 x 4 px, of 16 codes.
    assert "8,400 tokens, 0.25 bits per pixel" in printed
    assert "8,400 of 8,400 ids are the same" in printed
    assert Tokenizer.from_pretrained(tmp_path / "my-tokenizer").training_summary["step"] == 4
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 5
