"""What the names in a Python script stand for: an expression as the dotted name of what was imported.

    import requests as r                 r.post(...)               requests.post
    from smtplib import SMTP             with SMTP(h) as s         s: smtplib.SMTP()
    self.client = OpenAI()               self.client.chat.x()      openai.OpenAI().chat.x
    def connect(): return sqlite3...     connect().cursor()        sqlite3.connect().cursor()

`()` stands for what a call gave, `?` for a name of which nothing is known (`?session.commit`). A name that is bound
several times in a scope is what it was first; a parameter is what its annotation says. Nothing is executed and no other
file is read: what comes from elsewhere, or out of a list or a dict, has no name here. Texts that are assigned to names
are known too, for the SQL in them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field

Function = ast.FunctionDef | ast.AsyncFunctionDef
_DEEPEST = 40  # names that stand for names: more is a circle


@dataclass
class Scope:
    """A module or a function: what its own names are bound to. `above` is where the others are looked for."""

    name: str
    above: Scope | None = None
    bound: dict[str, ast.expr] = field(default_factory=dict)
    imported: dict[str, str] = field(default_factory=dict)
    given: dict[str, str] = field(default_factory=dict)  # functions of the script: what their calls return

    @property
    def root(self) -> Scope:
        return self if self.above is None else self.above.root


def scope_of(tree: ast.Module) -> Scope:
    """The scope of a whole script. `self.x` is bound here for all of its classes."""
    scope = Scope("")
    _bind(tree.body, scope)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):  # those inside of functions and `try` count for all
            _import(node, scope)
        elif isinstance(node, ast.Assign) and len(node.targets) == 1:
            target = node.targets[0]
            if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id == "self":
                scope.bound.setdefault(f"self.{target.attr}", node.value)
    for node in ast.walk(tree):
        if isinstance(node, Function):
            inner = inner_scope(node, scope)
            for returned in _returns(node):
                name = dotted(returned, inner)
                if name:
                    scope.given.setdefault(node.name, name)
                    break
    return scope


def inner_scope(function: Function, above: Scope) -> Scope:
    """The scope of a function's body."""
    scope = Scope(function.name, above)
    arguments = function.args
    for each in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]:
        if each.annotation is not None:
            scope.bound[each.arg] = ast.Call(each.annotation, [], [])  # an object of that class
    _bind(function.body, scope)
    return scope


def dotted(node: ast.expr | None, scope: Scope, deep: int = 0) -> str:
    """The dotted name of an expression, `()` for each call in it; "" for what has none."""
    if node is None or deep > _DEEPEST:
        return ""
    if isinstance(node, ast.Name):
        return _named(node.id, scope, deep)
    if isinstance(node, ast.Attribute):
        if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
            bound = scope.root.bound.get(f"self.{node.attr}")
            if bound is not None:
                return dotted(bound, scope.root, deep + 1) or f"?self.{node.attr}"
        base = dotted(node.value, scope, deep + 1)
        return f"{base}.{node.attr}" if base else ""
    if isinstance(node, ast.Call):
        base = dotted(node.func, scope, deep + 1)
        own = scope.root.given.get(base.removeprefix("?").removeprefix("self."))
        return own if own is not None else f"{base}()" if base else ""
    if isinstance(node, ast.Await):
        return dotted(node.value, scope, deep + 1)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):  # a path of pathlib
        return dotted(node.left, scope, deep + 1)
    if isinstance(node, ast.BoolOp):  # `session or requests.Session()`
        return next(filter(None, (dotted(value, scope, deep + 1) for value in reversed(node.values))), "")
    return ""


def text_of(node: ast.expr | None, scope: Scope, deep: int = 0) -> str:
    """The text that an expression begins with, as far as it stands in the script; that of `text("…")` too."""
    if node is None or deep > _DEEPEST:
        return ""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return text_of(node.values[0], scope, deep + 1) if node.values else ""
    if isinstance(node, ast.BinOp):
        return text_of(node.left, scope, deep + 1)
    if isinstance(node, ast.Name):
        where: Scope | None = scope
        while where is not None:
            if node.id in where.bound:
                return text_of(where.bound[node.id], where, deep + 1)
            where = where.above
        return ""
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute):  # "…".format(), "…".strip()
            return text_of(node.func.value, scope, deep + 1) or text_of(next(iter(node.args), None), scope, deep + 1)
        return text_of(next(iter(node.args), None), scope, deep + 1)
    if isinstance(node, ast.List | ast.Tuple):
        return " ".join(text_of(each, scope, deep + 1) for each in node.elts[:2])
    return ""


def _named(name: str, scope: Scope, deep: int) -> str:
    where: Scope | None = scope
    while where is not None:
        if name in where.bound:
            return dotted(where.bound[name], where, deep + 1)
        if name in where.imported:
            return where.imported[name]
        where = where.above
    return "?" + name


def _bind(body: list[ast.stmt], scope: Scope) -> None:
    for node in own_nodes(body):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                _assign(target, node.value, scope)
        elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and node.value is not None:
            _assign(node.target, node.value, scope)
        elif isinstance(node, ast.With | ast.AsyncWith):
            for item in node.items:
                _assign(item.optional_vars, item.context_expr, scope)


def _assign(target: ast.expr | None, value: ast.expr, scope: Scope) -> None:
    if isinstance(target, ast.Name) and not (isinstance(value, ast.Constant) and value.value is None):
        scope.bound.setdefault(target.id, value)


def _import(node: ast.Import | ast.ImportFrom, scope: Scope) -> None:
    for alias in node.names:
        if isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            scope.imported.setdefault(alias.asname or alias.name, f"{base}.{alias.name}")
        elif alias.asname:
            scope.imported.setdefault(alias.asname, alias.name)
        else:
            top = alias.name.partition(".")[0]
            scope.imported.setdefault(top, top)


def own_nodes(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """All nodes below, in the order of the text, but not those of functions and classes in it."""
    waiting: list[ast.AST] = list(reversed(body))
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, Function | ast.ClassDef | ast.Lambda):
            waiting += reversed(list(ast.iter_child_nodes(node)))


def _returns(function: Function) -> Iterator[ast.expr]:
    for node in own_nodes(function.body):
        if isinstance(node, ast.Return | ast.Yield) and node.value is not None:
            yield node.value
