"""Cuts out of vqtrain's sources what some of its names need, as flat files beside each other.

Of each module those classes, functions and constants stay that are reached, with their comments, in
their order; imports are rewritten to the new files.
"""

import ast
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import final

from vqtrain.errors import ConfigError

OWN = "vqtrain"
_ROOT = Path(__file__).parents[4]
_HERE = "vqtrain.formats.parts.standalone"
# What takes the place of names of others, and of what imports by name.
REPLACED = {("einops", "rearrange"): f"{_HERE}.layout"} | {
    (f"{OWN}.build", name): f"{_HERE}.kinds"
    for name in ("build", "build_part", "in_context", "resolve")
}
REPLACED_MODULES = {"jaxtyping": f"{_HERE}.annotations"}
# What standalone code may import: of Python's own what reaches neither files nor the network.
# Triton is there or not, and who uses it looks first.
PACKAGES = {"numpy", "torch"}
OPTIONAL = {"triton"}
MODULES = {"abc", "collections.abc", "contextlib", "contextvars", "dataclasses", "difflib", "enum"}
MODULES |= {"fractions", "functools", "hashlib", "importlib.util", "inspect", "itertools", "math"}
MODULES |= {"operator", "re", "sys", "types", "typing", "warnings"}

WIDTH = 100
NOTICE = "# Cut out of vqtrain (MIT license, the vqtrain authors) for one tokenizer."


@final
@dataclass(frozen=True, kw_only=True)
class Import:
    """Where a name of a module comes from.

    Attributes:
        module: The module that is imported, or from which.
        name: What of it; None for the module itself.
        line: The number of the statement.
    """

    module: str
    name: str | None
    line: int


@final
@dataclass(kw_only=True)
class Module:
    """A module of vqtrain.

    Attributes:
        lines: Its text.
        docstring: Its docstring.
        statements: What it is made of after its imports, in order.
        defined: Which of them define a name, by their place.
        imports: What its imported names are.
    """

    lines: list[str]
    docstring: str
    statements: list[ast.stmt] = field(default_factory=list)
    defined: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    imports: dict[str, Import] = field(default_factory=dict)


def file_of(module: str) -> Path:
    """Return the file that a module of vqtrain has, if it is one."""
    return _ROOT.joinpath(*module.split(".")).with_suffix(".py")


@cache
def read(name: str) -> Module:
    """Read a module."""
    text = file_of(name).read_text(encoding="utf-8")
    tree = ast.parse(text)
    module = Module(lines=text.splitlines(), docstring=ast.get_docstring(tree, clean=False) or "")
    for statement in tree.body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            module.imports |= dict(imported(statement))
        elif not isinstance(statement, ast.Expr | ast.If):  # the docstring, TYPE_CHECKING
            for target in targets_of(statement):
                module.defined[target].append(len(module.statements))
            module.statements.append(statement)
    return module


def imported(statement: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, Import]]:
    """List the names of an import, with where they come from."""
    for alias in statement.names:
        name = alias.asname or alias.name
        if isinstance(statement, ast.Import):
            yield name, Import(module=alias.name, name=None, line=statement.lineno)
            continue
        module = statement.module or ""
        inner = f"{module}.{alias.name}"
        if module.split(".")[0] == OWN and file_of(inner).is_file():
            yield name, Import(module=inner, name=None, line=statement.lineno)
            continue
        home = REPLACED.get((module, alias.name)) or REPLACED_MODULES.get(module) or module
        yield name, Import(module=home, name=alias.name, line=statement.lineno)


def targets_of(statement: ast.stmt) -> list[str]:
    """List the names that a statement defines."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return [statement.name]
    assert isinstance(statement, ast.Assign | ast.AnnAssign), ast.dump(statement)
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    return [node.id for each in targets for node in ast.walk(each) if isinstance(node, ast.Name)]


@final
class Cut:
    """What is reached from some names.

    Args:
        names: Pairs of a module and a name in it.
        without: Methods that are left out, by module and class.

    Raises:
        ConfigError: If something is reached that needs other packages than torch.
    """

    def __init__(
        self,
        names: Iterable[tuple[str, str]],
        without: Mapping[tuple[str, str], Collection[str]],
    ) -> None:
        self.without = without
        # Places of statements and names of imports that stay, by module.
        self.kept: dict[str, set[int]] = defaultdict(set)
        self.used: dict[str, set[str]] = defaultdict(set)
        self.pending = list(names)
        while self.pending:
            self._follow(*self.pending.pop())

    def _follow(self, name: str, wanted: str) -> None:
        module = read(name)
        if wanted in module.imports:  # another module's, handed on
            self._use(name, wanted)
            return
        assert wanted in module.defined, f"{name} has no {wanted}"
        for place in module.defined[wanted]:
            if place not in self.kept[name]:
                self.kept[name].add(place)
                self._scan(name, module.statements[place])

    def _scan(self, name: str, statement: ast.stmt) -> None:
        module = read(name)
        nodes = list(walk(statement, self._dropped(name, statement)))
        within = dict[str, Import]()  # functions
        for node in nodes:
            if isinstance(node, ast.Import | ast.ImportFrom):
                within |= imported(node)
        for found in within.values():
            self._need(found, name)
        for node in nodes:
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                self._need_of(within.get(node.value.id) or module.imports.get(node.value.id), node)
            elif isinstance(node, ast.Name) and node.id in module.imports:
                self._use(name, node.id)
            elif isinstance(node, ast.Name) and node.id in module.defined:
                self.pending.append((name, node.id))

    def _need_of(self, found: Import | None, node: ast.Attribute) -> None:
        if found is not None and found.name is None and found.module.split(".")[0] == OWN:
            self.pending.append((found.module, node.attr))

    def _use(self, name: str, local: str) -> None:
        if local not in self.used[name]:
            self.used[name].add(local)
            self._need(read(name).imports[local], name)

    def _need(self, found: Import, by: str) -> None:
        package = found.module.split(".")[0]
        if package == OWN:
            if found.name is not None:
                self.pending.append((found.module, found.name))
        elif package not in PACKAGES | OPTIONAL and found.module not in MODULES:
            raise ConfigError(f"{by} needs {found.module}, and what is written has torch alone")

    def _dropped(self, name: str, statement: ast.stmt) -> set[ast.AST]:
        if not isinstance(statement, ast.ClassDef):
            return set()
        dropped = self.without.get((name, statement.name), ())
        return {node for node in statement.body if getattr(node, "name", None) in dropped}

    def files(self, suffix: str) -> dict[str, str]:
        """Return the texts of the files, by the names of the modules that they are cut out of.

        Args:
            suffix: Of the names of files, as ``flat`` makes them.
        """
        return {name: self._text(name, suffix) for name in sorted({*self.kept, *self.used})}

    def _text(self, name: str, suffix: str) -> str:
        module = read(name)
        imported = [(local, module.imports[local]) for local in self.used[name]]
        lines = [NOTICE, f'"""{module.docstring}"""', *imports_of(imported, suffix)]
        text = "\n".join(lines) + "\n"
        for place in sorted(self.kept[name]):
            statement = module.statements[place]
            is_block = isinstance(statement, ast.FunctionDef | ast.ClassDef)
            above = "\n\n" if is_block else "\n"
            text += above + "\n".join(self._lines(name, statement, suffix)) + "\n"
        return text

    def _lines(self, name: str, statement: ast.stmt, suffix: str) -> list[str]:
        """Return the text of a statement, with the comments above it and other imports."""
        lines = read(name).lines
        changed = dict[int, list[str]]()
        for dropped in self._dropped(name, statement):
            changed |= {number: [] for number in span(dropped)}
        for node in ast.walk(statement):
            if isinstance(node, ast.Import | ast.ImportFrom) and node.lineno not in changed:
                changed |= {number: [] for number in span(node)}
                new = imports_of(list(imported(node)), suffix)[1:]
                changed[node.lineno] = [" " * node.col_offset + line for line in new]
        numbers = span(statement)
        first = numbers[0]
        while lines[first - 2].startswith("#"):
            first -= 1
        kept = (changed.get(each, [lines[each - 1]]) for each in range(first, numbers[-1] + 1))
        return [line for group in kept for line in group]


def walk(node: ast.AST, without: Collection[ast.AST]) -> Iterator[ast.AST]:
    """Yield a node and all below it, but some of them."""
    yield node
    for child in ast.iter_child_nodes(node):
        if child not in without:
            yield from walk(child, without)


def span(node: ast.AST) -> range:
    """Return the numbers of the lines of a statement, with its decorators."""
    assert isinstance(node, ast.stmt), "it is one of a body"
    decorators = getattr(node, "decorator_list", [])
    first = min([node.lineno, *(decorator.lineno for decorator in decorators)])
    return range(first, (node.end_lineno or first) + 1)


def flat(module: str, suffix: str) -> str:
    """Return the name of the file of a module, without ``.py``."""
    return f"{module.replace(_HERE, OWN).replace('.', '_')}{suffix}"


def imports_of(names: Collection[tuple[str, Import]], suffix: str) -> list[str]:
    """Write imports of names, grouped by module, those of other packages first.

    Args:
        names: As they are called here, and what they are.
        suffix: As of ``flat``.
    """
    groups = dict[tuple[str, str], list[str]]()
    for local, found in sorted(names, key=lambda item: (item[1].module, item[0])):
        package = found.module.split(".")[0]
        home = f".{flat(found.module, suffix)}" if package == OWN else found.module
        if found.name is not None:
            start, known = f"from {home} import", found.name
        elif package == OWN:
            start, known = "from . import", home[1:]
        else:
            start, known = "import", found.module
        shown = known if known == local else f"{known} as {local}"
        groups.setdefault((package, start), []).append(shown)
    lines: dict[bool, list[str]] = {False: [], True: []}
    for (package, start), those in groups.items():
        new = [f"import {each}" for each in those] if start == "import" else wrapped(start, those)
        if package in OPTIONAL:
            new = ["try:", *(f"    {line}" for line in new), "except ImportError:", "    pass"]
        lines[package == OWN] += new
    return [each for group in lines.values() if group for each in ("", *group)]


def wrapped(start: str, names: Collection[str]) -> list[str]:
    """Write names of one module in a line, or in one line each."""
    line = f"{start} {', '.join(names)}"
    return [line] if len(line) <= WIDTH else [f"{start} (", *(f"    {n}," for n in names), ")"]
