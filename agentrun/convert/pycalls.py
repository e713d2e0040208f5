"""The calls in a Python script that a rerun should not make again: which they are (`pytables`), and where.

`pynames` says what an expression stands for. A receiver of which nothing is known is judged by names that only one
library has (`.insert_one`, `.chat.completions.create`), and `.execute` by the SQL that it is given. Left out is what is
harmless twice: `CREATE … IF NOT EXISTS`, a removal that bears a missing file, a command that only looks (`git
rev-parse`), a commit beside the statements that it ends, and what is in a `@step` already.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import NamedTuple

from . import pytables as tables
from .pynames import Function, Scope, dotted, inner_scope, scope_of, text_of
from .pytables import What


class Call(NamedTuple):
    """A call. `name` as it is written, `function` the one that it stands in ("" is the module's top level)."""

    line: int
    name: str
    what: What
    function: str
    loop: int = 0  # the line of the loop that it is made in; 0 if in none
    keyed: bool = False  # it says an idempotency key


class _Place(NamedTuple):
    """Where a node stands. `borne`: a file that is not there is expected here."""

    scope: Scope
    function: str = ""
    loop: int = 0
    borne: bool = False


def calls(tree: ast.Module) -> list[Call]:
    """All such calls of a script, those of its functions included, in the order of the lines."""
    place = _Place(scope_of(tree))
    found = sorted(call for node in tree.body for call in _below(node, place))
    written = {call.function for call in found if call.what == "database" and not call.name.endswith(".commit")}
    return [call for call in found if not (call.name.endswith(".commit") and call.function in written)]


def _below(node: ast.AST, place: _Place) -> Iterator[Call]:
    if isinstance(node, Function):
        if not any(_is_step(each, place.scope) for each in node.decorator_list):
            name = f"{place.function}.{node.name}" if place.function else node.name
            inner = _Place(inner_scope(node, place.scope), name)
            for statement in node.body:
                yield from _below(statement, inner)
        return
    if isinstance(node, ast.Call) and (what := _what(node, place)):
        keyed = "idempoten" in ast.unparse(node).lower()
        yield Call(node.lineno, written(node.func), what, place.function, place.loop, keyed)
    repeated: list[ast.AST] = []
    if isinstance(node, ast.For | ast.AsyncFor | ast.While):
        repeated = list(node.body)
    elif isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        repeated = list(ast.iter_child_nodes(node))
    place = place._replace(borne=place.borne or _bears(node, place.scope))
    for child in ast.iter_child_nodes(node):
        again = child in repeated
        yield from _below(child, place._replace(loop=getattr(node, "lineno", 0)) if again else place)


def _is_step(decorator: ast.expr, scope: Scope) -> bool:
    return dotted(decorator, scope).removesuffix("()") == "agentrun.durable.step"


def _bears(node: ast.AST, scope: Scope) -> bool:
    """Whether what stands in this statement can be done where the file is gone already."""
    if isinstance(node, ast.Try):
        names = {ast.unparse(each) for handler in node.handlers for each in _caught(handler)}
        return bool(names & tables.BEARS) or any(handler.type is None for handler in node.handlers)
    if isinstance(node, ast.With):
        return any(dotted(item.context_expr, scope) == "contextlib.suppress()" for item in node.items)
    return isinstance(node, ast.If) and bool(tables.EXISTS.search(ast.unparse(node.test)))


def _caught(handler: ast.ExceptHandler) -> list[ast.expr]:
    return handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type] if handler.type else []


def _what(node: ast.Call, place: _Place) -> What | None:
    name = dotted(node.func, place.scope)
    if not name and isinstance(node.func, ast.Attribute):
        name = f"?.{node.func.attr}"
    if "." not in name:
        return None
    verb = name.rpartition(".")[2]
    for row in tables.TABLE:
        if row.verbs.fullmatch(verb) and any(module in row.modules for module in _modules(name)):
            looks = row.what == "command" and tables.LOOKING.match(text_of(next(iter(node.args), None), place.scope))
            return None if looks else row.what
    return _elsewhere(node, name, verb, place.scope) or _here(node, name, verb, place)


def _modules(name: str) -> Iterator[str]:
    parts = name.replace("()", "").split(".")
    return (".".join(parts[:count]) for count in range(1, len(parts)))


def _elsewhere(node: ast.Call, name: str, verb: str, scope: Scope) -> What | None:
    if tables.MODEL_ENDS.fullmatch(name):
        return "paid"
    if name.partition(".")[0] in tables.HTTP:
        return _request(node, verb, scope) if tables.REQUEST.fullmatch(name) else None
    if cloud := tables.CLOUD.fullmatch(name):
        return None if cloud[1] in tables.CLOUD_QUIET else "sent" if tables.CLOUD_SENDS.match(cloud[1]) else "asked"
    return None


def _request(node: ast.Call, verb: str, scope: Scope) -> What | None:
    said = {keyword.arg: keyword.value for keyword in node.keywords}
    if verb in ("post", "patch"):
        return "sent"
    if verb in ("urlopen", "urlretrieve"):
        return "sent" if "data" in said or (verb == "urlopen" and len(node.args) > 1) else "asked"
    if verb in ("request", "stream"):
        method = text_of(said.get("method", node.args[0] if node.args else None), scope)
        return "sent" if method.upper() in ("POST", "PATCH") else "asked"
    return "asked" if verb in tables.ASKS else None


def _here(node: ast.Call, name: str, verb: str, place: _Place) -> What | None:
    if _writes(node, name, verb, place.scope):
        return "database"
    if name in tables.REMOVES or (name in tables.MOVES and node.args):
        said = {each.arg for each in node.keywords if isinstance(each.value, ast.Constant) and each.value.value}
        return None if place.borne or said & {"missing_ok", "ignore_errors"} else "files"
    return None


def _writes(node: ast.Call, name: str, verb: str, scope: Scope) -> bool:
    first = node.args[0] if node.args else None
    if verb in ("execute", "executemany", "executescript", "exec_driver_sql"):
        sql = text_of(first, scope)
        if tables.WRITES.match(sql):
            return not tables.HARMLESS_SQL.search(sql)
        return bool(re.match(r"sqlalchemy\b.*\.(insert|update|delete)\(\)", dotted(first, scope)))
    if verb in tables.MONGO or tables.ORM.fullmatch(name):
        return True
    imported = {each.partition(".")[0] for each in scope.root.imported.values()}
    if verb == "to_sql":
        return bool(imported & {"pandas", "polars"})
    if not imported & tables.DATABASES:
        return False
    receiver = name.rpartition(".")[0].lower()
    if verb == "commit":
        return bool(re.search(r"con\b|conn|db|session|database|sqlite3|psycopg|mysql", receiver))
    if verb in ("add", "add_all", "merge", "bulk_save_objects", "bulk_insert_mappings", "delete"):
        return "session" in receiver and bool(imported & {"sqlalchemy", "sqlmodel", "flask_sqlalchemy"})
    return verb in ("copy_from", "copy_expert")


def written(node: ast.expr) -> str:
    """As it stands in the script, the calls within it without their arguments."""
    if isinstance(node, ast.Attribute):
        return f"{written(node.value)}.{node.attr}"
    if isinstance(node, ast.Call):
        return f"{written(node.func)}()"
    return node.id if isinstance(node, ast.Name) else "…"
