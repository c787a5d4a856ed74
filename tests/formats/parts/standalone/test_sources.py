"""What is cut out of our sources: all that is needed, and nothing of other packages."""

import ast

import pytest

from vqtrain.build import kinds, resolve
from vqtrain.errors import ConfigError
from vqtrain.formats.parts.standalone.sources import MODULES, OPTIONAL, PACKAGES, Cut

KINDS = [(group, kind) for group in ("encoder", "codebook", "decoder") for kind in kinds(group)]


def cut(*names: tuple[str, str]) -> dict[str, ast.Module]:
    """The files, parsed."""
    files = Cut(names, {}).files("_x")
    return {name: ast.parse(text) for name, text in files.items()}


def defined(tree: ast.Module) -> list[str]:
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]


def test_only_what_is_reached_stays() -> None:
    files = cut(("vqtrain.ops.pixels", "to_pixels"))
    assert "to_pixels" in defined(files["vqtrain.ops.pixels"])
    assert "to_images" not in defined(files["vqtrain.ops.pixels"])
    assert list(files) == ["vqtrain.formats.parts.standalone.annotations", "vqtrain.ops.pixels"]


def test_methods_can_be_left_out() -> None:
    name = ("vqtrain.errors", "Interrupted")
    whole = Cut([name], {}).files("")["vqtrain.errors"]
    less = Cut([name], {name: ["__init__"]}).files("")["vqtrain.errors"]
    assert "def __init__" in whole
    assert "def __init__" not in less
    assert "class Interrupted" in less


@pytest.mark.parametrize(("group", "kind"), KINDS, ids=str)
def test_every_kind_stands_alone(group: str, kind: str) -> None:
    found = resolve(group, kind)
    name = (found.__module__, found.__name__)
    if kind == "timm":
        with pytest.raises(ConfigError, match=r"needs .*, and what is written has torch alone"):
            cut(name)
        return
    files = cut(name)
    names = {f"{each.replace('vqtrain.formats.parts.standalone', 'vqtrain')}" for each in files}
    flat = {f"{each.replace('.', '_')}_x" for each in names}
    for tree in files.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                others = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                others = [node.module]
            elif isinstance(node, ast.ImportFrom):
                inner = [node.module] if node.module else [alias.name for alias in node.names]
                assert set(inner) <= flat
                continue
            else:
                continue
            assert all(
                other in MODULES or other.split(".")[0] in PACKAGES | OPTIONAL for other in others
            )
