"""The layers of the design, read from the code itself: imports go down, and each library has one owner.

    cli > render > convert > cron > health > engine > notify > step > store > spec > instants, model, errors, effects

`notify` stands above the steps and the store, of which it tells, and below all that have something to tell.
`durable` and `inside` are for the steps' own interpreters: they know nobody, and nobody knows them. `__main__` stands
above all of them, the package's own `__version__` below. Also the house rules that a machine can check: the length of
files and functions, docstrings, no bare `except`, imports inside functions only where a reason is written down here.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "agentrun"

LAYERS = [("__main__",), ("cli",), ("render",), ("convert",), ("cron",), ("health",), ("engine",), ("notify",),
          ("step",), ("store",), ("spec",), ("durable", "inside"),
          ("instants", "digest", "model", "errors", "effects", "faults"), ("",)]  # fmt: skip
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

# Who may import a library; a folder stands for all in it. Everything else is the standard library or ours.
OWNERS = {
    "typer": ("cli",),
    "rich": ("render",),
    "croniter": ("spec/schedules",),
    "psutil": ("step", "engine/budgets"),
    "tree_sitter": ("convert/syntax",),
    "tree_sitter_bash": ("convert/syntax",),
    "apprise": ("notify",),
    "yaml": ("spec",),
    "sqlite3": ("store",),
    "sqlite_utils": ("store",),
}

# Imports inside functions, outside `cli`: what is saved by them, or what they are for.
_COST = "costs every run or command some ms and memory, and few need it"
_STEP = "loaded at the first call in a run: a script's import of it must take no time"
_SHIM = "the shim loads this module, and must stay small"
INSIDE: dict[tuple[str, str], str] = {
    ("__main__", "agentrun.cli.early"): "the shim is forked before anything else is loaded",
    ("__main__", "agentrun.step.link"): "the shim is forked before anything else is loaded",
    ("__main__", "agentrun.cli.app"): "loaded after the shim has been forked",
    ("__main__", "agentrun.cli.direct"): "loaded after the shim has been forked",
    ("__main__", "agentrun.cli.hiding"): "only for `run`",
    ("__main__", "agentrun.cli.outcome"): "loaded after the shim has been forked",
    ("durable/__init__", "agentrun.durable.calls"): _STEP,
    ("durable/__init__", "agentrun.durable.handing"): _STEP,
    ("durable/__init__", "agentrun.durable.making"): _STEP,
    ("durable/handing", "agentrun.durable.within"): "only in a run",
    ("durable/streams", "agentrun.durable"): "it changes in a forked child",
    ("durable/making", "asyncio"): "only where there is a pause in `async def`",
    ("instants", "datetime"): _COST,
    ("cron/ticks", "datetime"): "only where a zone is named",
    ("cron/ticks", "zoneinfo"): "only where a zone is named",
    ("effects", "shutil"): _SHIM,
    ("engine/scratch", "shutil"): "only for `resume --from`",
    ("engine/judge", "agentrun.spec.values"): "only where a step timed out",
    ("engine/lease", "pwd"): _COST,
    ("notify/hearers", "agentrun.spec.config"): "only where there is a config.yaml",
    ("notify/senders", "apprise"): "an extra that few have",
    ("render/tables", "textwrap"): "only on a narrow terminal",
    ("render/terminal", "unicodedata"): "only for text that is not ASCII",
    ("render/words", "json"): "only where a value is shown",
    ("render/times", "agentrun.spec.values"): "only where a time is given",
    ("spec/schedules", "croniter"): "only where a schedule is decoded: it takes 55 ms",
    ("spec/schedules", "zoneinfo"): "only where a zone is decoded",
    ("step/attempts", "agentrun.step.handing"): "only in a run with `carry`, at its first order",
    ("step/contract", "pwd"): "only with `inherit_env: false`",
    ("step/descriptors", "_ctypes"): _SHIM,
    ("step/detach", "_ctypes"): _SHIM,
    ("step/detach", "ctypes"): "only where `_ctypes` is another one",
    ("step/link", "agentrun.step.shim"): "only the forked child becomes a shim",
    ("step/link", "sys"): _SHIM,
    ("step/link", "agentrun.errors"): _SHIM,
    ("step/protocol", "_json"): _SHIM,
    ("step/protocol", "json"): "only where `_json` is another one",
    ("step/tree", "agentrun.errors"): _SHIM,
    ("step/tree", "agentrun.store.locks"): _SHIM,
    ("store/snapshots", "agentrun.spec.decode"): "only where another version of the program kept the job",
    ("store/database", "tempfile"): "only on a read-only disk",
}

# Where a library is named outside its owner's folder.
BORROWED: dict[tuple[str, str], str] = {
    ("cli/outcome", "sqlite3"): "the one place where errors become words looks whether it is SQLite's",
    ("digest", "_sha2"): "the C module of Python 3.12 and newer",
    ("digest", "_sha256"): "the C module of Python 3.11",
}


@dataclass(frozen=True)
class Import:
    """One imported module, as `agentrun.store.read` or `json`."""

    target: str
    line: int
    inside: str | None  # the function that it stands in
    typing_only: bool

    @property
    def ours(self) -> bool:
        return self.target.split(".")[0] == "agentrun"

    @property
    def layer(self) -> str:
        return [*self.target.split("."), ""][1]


@dataclass(frozen=True)
class Module:
    """A file of the package, parsed. `name` is its path below the package, without `.py`."""

    name: str
    text: str
    tree: ast.Module

    @property
    def layer(self) -> str:
        top = self.name.split("/")[0]
        return "" if top == "__init__" else top

    def imports(self) -> Iterator[Import]:
        """Every import of the file, wherever it stands."""
        yield from self._imports(self.tree, None, False)

    def _imports(self, node: ast.AST, inside: str | None, typing_only: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import | ast.ImportFrom):
                for target in self._targets(child):
                    yield Import(target, child.lineno, inside, typing_only)
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield from self._imports(child, child.name, typing_only)
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                yield from self._imports(child, inside, True)
            else:
                yield from self._imports(child, inside, typing_only)

    def _targets(self, node: ast.Import | ast.ImportFrom) -> Iterator[str]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
            return
        base = node.module or ""
        if node.level:
            folder = ["agentrun", *self.name.split("/")][: -node.level]
            base = ".".join(folder + ([base] if base else []))
        for alias in node.names:  # `from ..store import locks` imports the module store.locks
            whole = f"{base}.{alias.name}"
            yield whole if whole.removeprefix("agentrun.").replace(".", "/") in NAMES else base


def _names() -> set[str]:
    found = set()
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).with_suffix("").as_posix()
        found |= {name, name.removesuffix("/__init__")}
    return found


NAMES = _names()


def _modules() -> list[Module]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text()
        found.append(Module(path.relative_to(PACKAGE).with_suffix("").as_posix(), text, ast.parse(text)))
    return found


MODULES = _modules()
each_module = pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)


@each_module
def test_imports_go_down(module: Module) -> None:
    for imported in module.imports():
        if imported.ours:
            assert imported.layer in RANK, f"{module.name}:{imported.line}: {imported.layer} is no layer"
            below = RANK[imported.layer] >= RANK[module.layer]
            assert below, f"{module.name}:{imported.line}: {imported.target} is above it"


def test_the_lowest_layer_knows_nothing_of_ours() -> None:
    types_only = {("errors", "agentrun.model")}
    allowed = {("effects", "agentrun.faults")}  # where the points were asked for
    for module in MODULES:
        if module.layer in LAYERS[-2]:
            for imported in module.imports():
                if imported.ours and (module.name, imported.target) not in allowed:
                    assert (module.name, imported.target) in types_only and imported.typing_only, imported


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = {
        module.name: {
            imported.target.removeprefix("agentrun.").replace(".", "/")
            for imported in module.imports()
            if imported.ours and not imported.typing_only and not imported.inside
        }
        for module in MODULES
    }
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " > ".join((*path, name))
        if name not in done:
            for target in sorted(graph.get(name, ())):
                visit(target, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def reach(start: str) -> set[str]:
    """All modules of ours that are loaded with one."""
    by_name = {module.name: module for module in MODULES}
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        module = by_name.get(waiting.pop())
        if module is None or module.name in seen:
            continue
        seen.add(module.name)
        waiting += [
            imported.target.removeprefix("agentrun.").replace(".", "/")
            for imported in module.imports()
            if imported.ours and not imported.typing_only
        ]
    return seen


@pytest.mark.parametrize("pure", ["engine/plan", "engine/facts"])
def test_the_plan_and_the_store_do_not_know_each_other(pure: str) -> None:
    known = reach(pure)
    assert pure in known
    assert not [name for name in known if name.startswith(("store/", "step/"))]
    for module in MODULES:
        if module.layer == "store":
            assert not [name for name in reach(module.name) if name.startswith("engine/")]


@pytest.mark.parametrize("pure", ["engine/plan", "engine/facts"])
def test_the_plan_is_pure(pure: str) -> None:
    """No clock, no chance, no files: what it decides follows from its arguments."""
    forbidden = {"time", "datetime", "random", "secrets", "os", "subprocess", "socket", "threading", "sqlite3"}
    for name in reach(pure):
        module = next(module for module in MODULES if module.name == name)
        assert not forbidden & {imported.target for imported in module.imports()}, name


@each_module
def test_each_library_has_one_owner(module: Module) -> None:
    for imported in module.imports():
        library = imported.target.split(".")[0]
        if library in OWNERS:
            owned = any(module.name == owner or module.name.startswith(owner + "/") for owner in OWNERS[library])
            assert owned or (module.name, library) in BORROWED, f"{module.name}:{imported.line} imports {library}"
        else:
            borrowed = (module.name, library) in BORROWED
            known = imported.ours or library in sys.stdlib_module_names or borrowed
            assert known, f"{module.name}:{imported.line}: {library} is no dependency"


def test_the_runner_of_python_steps_needs_nothing_but_python() -> None:
    """It is executed by path in any interpreter, with no agentrun beside it."""
    runner = next(module for module in MODULES if module.name == "step/pystep")
    assert all(imported.target in sys.stdlib_module_names or "." in imported.target for imported in runner.imports())
    assert not [imported for imported in runner.imports() if imported.ours]


def test_what_scripts_import_needs_nothing_but_python_3_8() -> None:
    rooms = ("durable/", "inside/")
    own = [module for module in MODULES if module.name.startswith(rooms)]
    assert {"durable/__init__", "inside/agentrun/__init__"} <= {module.name for module in own}
    for module in own:
        ast.parse(module.text, feature_version=(3, 8))
        for imported in module.imports():
            ours = imported.target.startswith("agentrun.durable")
            assert ours or imported.target in sys.stdlib_module_names or imported.target == "collections.abc", imported
    users = [module for module in MODULES if not module.name.startswith(rooms)]
    assert not [module.name for module in users for i in module.imports() if i.target.startswith("agentrun.durable")]


@each_module
def test_imports_inside_functions_have_a_reason(module: Module) -> None:
    if module.layer == "cli":
        return
    unexplained = [
        f"{module.name}:{imported.line}: {imported.target} in {imported.inside}"
        for imported in module.imports()
        if imported.inside and not imported.typing_only and (module.name, imported.target) not in INSIDE
    ]
    assert unexplained == []


def test_every_reason_is_still_needed() -> None:
    inside = {(module.name, imported.target) for module in MODULES for imported in module.imports() if imported.inside}
    assert set(INSIDE) - inside == set()
    outside = {(module.name, imported.target.split(".")[0]) for module in MODULES for imported in module.imports()}
    assert set(BORROWED) - outside == set()


@each_module
def test_a_file_is_short(module: Module) -> None:
    assert len(module.text.splitlines()) <= 450


@each_module
def test_a_function_is_at_most_a_screen(module: Module) -> None:
    long = [
        f"{module.name}:{node.lineno} {node.name}: {length}"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or 0) - node.lineno + 1) > 60
    ]
    assert long == []


@each_module
def test_a_module_says_what_it_is(module: Module) -> None:
    docstring = ast.get_docstring(module.tree)
    assert docstring or not module.text.strip()
    assert len((docstring or "").splitlines()) <= 26  # its design: 20 lines, or a drawing


@each_module
def test_nothing_is_caught_unnamed(module: Module) -> None:
    bare = [node.lineno for node in ast.walk(module.tree) if isinstance(node, ast.ExceptHandler) and not node.type]
    assert bare == []


@each_module
def test_names_say_what_they_are(module: Module) -> None:
    assert not set(module.name.split("/")) & {"utils", "util", "common", "helpers", "helper", "manager", "misc"}


def test_the_core_depends_on_few_libraries() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {line.split(">")[0].split("<")[0].split("=")[0].strip() for line in project["dependencies"]}
    parsers = {"tree-sitter", "tree-sitter-bash"}  # of `convert`, which is of little use without
    assert names == {"typer", "rich", "croniter", "sqlite-utils", "pyyaml", "psutil"} | parsers
    assert "Private :: Do Not Upload" in project["classifiers"]
