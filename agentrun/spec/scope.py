"""What references may name, and where they may stand: checked for a whole file before anything runs.

A field's `references` in the table decides: "values" are replaced, "program" is a program's text and never changed,
anything else takes none. Outputs and outcomes are those of steps that come before, by `needs`, directly or through
others; `item` is there in a step with `foreach`, and not in the `foreach` itself. Whether a step will really give an
output nobody can know yet, nor of which type where it declares none: that is for the run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from . import instances, order
from .document import ListNode, Node, Scalar
from .nearest import nearest, suggestion
from .references import Reference, find, malformed
from .report import INVALID, Report
from .steps import Draft
from .tables import Entry, ScalarOr, Table

FORMS = (
    "params.NAME", "steps.ID.outputs.KEY", "steps.ID.outcome", "item", "run.id", "run.scheduled_time", "env.NAME",
)  # fmt: skip
_FORMS_HINT = "references are " + ", ".join(FORMS)
_IN_THE_STEP = "put the variable into the 'env' of the step that uses it"
_ROOTS = ("params", "steps", "item", "run", "env")
_PLANNED = ("secrets",)
_ALONE = ("item", "secrets")  # that name something without a second part
_RUN = ("id", "scheduled_time")
_OF_STEP = ("outputs", "outcome")


Wrong = tuple[str, str | None]  # a message, and a hint


class Scope:
    """The names of one job. Without an order (there is a circle) only names are checked."""

    def __init__(self, report: Report, params: Mapping[str, Any], drafts: Sequence[Draft], ordered: bool) -> None:
        self.report = report
        self.params = params
        self.drafts = drafts
        self.index = {step.id: step.index for step in reversed(drafts)}
        self.ordered = ordered
        self._ancestors: list[int] | None = None
        self._unclear = sum(1 << step.index for step in drafts if step.unclear)

    def check(self, table: Table, entry: Entry, step: Draft | None) -> None:
        """All references in one table, and in those inside of it; `step` is None for the job's own keys."""
        for name, node in entry.nodes.items():
            known, value = table.fields[name], entry.values.get(name)
            if name == "steps":
                continue
            inner = known.kind.table if isinstance(known.kind, ScalarOr) else known.kind
            if isinstance(inner, Table) and isinstance(value, Entry):
                self.check(inner, value, step)
                continue
            for scalar, is_key in _scalars(node):
                if "${{" not in scalar.text or self.report.has_told(scalar.mark):
                    continue
                if known.references == "program":
                    self.refuse_in_program(name, scalar)
                elif known.references != "values" or is_key:
                    what = "a key" if is_key else f"'{name}'"
                    self.report.add_inside(scalar.mark, "${{", f"{what} takes no references")
                else:
                    self.check_text(name, scalar, step)
        foreach = entry.values.get("foreach")
        if step is not None and isinstance(foreach, str) and not self.report.has_told(entry.nodes["foreach"].mark):
            wrong = self.list_problem(next(find(foreach)), step)
            if wrong:
                self.report.add(entry.nodes["foreach"].mark, *wrong)

    def refuse_in_program(self, name: str, scalar: Scalar) -> None:
        for reference in find(scalar.text):
            if len(reference.path) > 1 or reference.path[0] in _ALONE:
                message = f"a reference in '{name}': no value becomes program text"
                self.report.add_inside(scalar.mark, reference.text, message, _instead(name, reference))

    def check_text(self, name: str, scalar: Scalar, step: Draft | None) -> None:
        for text in malformed(scalar.text):
            part = text if "}}" in text else "${{"
            if part == text:
                self.report.add_inside(scalar.mark, part, f"not a reference: '{text}'", _FORMS_HINT)
            else:
                self.report.add_inside(scalar.mark, part, "a reference without its end '}}'")
        for reference in find(scalar.text):
            wrong = self.item_problem(name, reference, step) or self.problem(reference, step)
            if wrong is None and step is None and name == "key" and reference.path[0] != "params":
                wrong = f"the key of 'concurrency' cannot refer to '{reference.dotted}'", "it can refer to params.NAME"
            if wrong:
                message, hint = wrong
                self.report.add_inside(scalar.mark, reference.text, message, hint)

    def item_problem(self, name: str, reference: Reference, step: Draft | None) -> Wrong | None:
        if reference.path[0] != "item":
            return None
        if step is None:
            return f"the job's '{name}' cannot refer to an item", _IN_THE_STEP
        if name == "foreach":
            return "'foreach' cannot refer to the items that it makes", None
        if "foreach" not in step.entry:
            if step.entry.unclear:
                return None
            hint = "what a step with 'foreach' gave is a list: steps.ID.outputs.KEY"
            return f"'{reference.dotted}' is known only inside of a step with 'foreach'", hint
        absent = instances.missing(step.entry, reference.path)
        return (f"'{reference.dotted}' {absent}", None) if absent else None

    def problem(self, reference: Reference, step: Draft | None) -> Wrong | None:
        """What is wrong with a reference: message and hint; None if nothing is."""
        root, *rest = reference.path
        if root == "params" and rest:
            if rest[0] in self.params:
                return None
            return f"unknown param '{rest[0]}'{suggestion(rest[0], self.params)}", None
        if root == "steps" and rest:
            return self.step_problem(reference, step)
        if root == "run" and len(rest) == 1:
            return None if rest[0] in _RUN else _unknown(reference, 1, _RUN, _FORMS_HINT)
        if root == "env" and len(rest) == 1:
            if re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", rest[0]):
                return None
            return f"'{rest[0]}' is not the name of a variable", None
        if root in _PLANNED:
            return f"unknown reference '{reference.dotted}': not built yet", None
        return None if root == "item" else _unknown(reference, 0, _ROOTS, _FORMS_HINT)

    def list_problem(self, reference: Reference, step: Draft) -> Wrong | None:
        """What a `foreach` refers to and what, as far as the file says, is no list."""
        root, name, *rest = (*reference.path, "", "")
        hint = None
        if root == "params" and len(reference.path) == 2:
            default = getattr(self.params.get(name), "values", {}).get("default")
            if default is None or isinstance(default, list):
                return None
            hint = "the param's default says what it is: let it be a list, as []"
        elif root == "steps" and rest[0] == "outputs" and len(reference.path) == 4 and name in self.index:
            entry = self.drafts[self.index[name]].entry
            declared = (entry.values.get("outputs") or {}).get(rest[1], "array")
            if declared == "array" or declared is INVALID or "foreach" in entry:
                return None
            hint = f"'{name}' declares it as {declared}: as array, a line that is JSON is read as a list"
        elif root != "run" and not (root == "steps" and rest[0] == "outcome"):
            return None
        return f"'foreach' expects a list, and '{reference.dotted}' is none", hint

    def step_problem(self, reference: Reference, step: Draft | None) -> Wrong | None:
        _, name, *rest = reference.path
        if step is None:
            return "the job's 'env' cannot refer to steps", _IN_THE_STEP
        if name not in self.index:
            return f"unknown step '{name}'{suggestion(name, self.index)}", None
        if not rest or rest[0] not in _OF_STEP or (rest[0] == "outcome") != (len(rest) == 1):
            return _unknown(reference, 2, _OF_STEP, f"steps.{name}.outputs.KEY or steps.{name}.outcome")
        if self.index[name] == step.index:
            return f"step '{step.id}' refers to itself", None
        if not self.comes_before(self.index[name], step):
            if self.comes_before(step.index, self.drafts[self.index[name]]):
                return f"step '{name}' comes only after '{step.id}'", f"move '{name}' before '{step.id}'"
            return f"step '{name}' does not come before '{step.id}'", f"add '{name}' to its 'needs'"
        return self.output_problem(name, rest[1:])

    def output_problem(self, name: str, keys: Sequence[str]) -> Wrong | None:
        """An output that a step does not declare, although it declares others. What declares none may give any."""
        entry = self.drafts[self.index[name]].entry
        if "foreach" in entry and len(keys) > 1 and not keys[1].isdecimal():
            hint = f"steps.{name}.outputs.{keys[0]}.0 is that of its first item"
            return f"step '{name}' has a 'foreach': its output '{keys[0]}' is a list, and has no '{keys[1]}'", hint
        declared = entry.values.get("outputs")
        if not declared or not keys or keys[0] in declared:
            return None
        near = suggestion(keys[0], declared)
        advice = None if near else f"its 'outputs' are {', '.join(declared)}: if it gives another one, declare it there"
        return f"step '{name}' declares no output '{keys[0]}'{near}", advice

    def comes_before(self, first: int, step: Draft) -> bool:
        if not self.ordered or step.unclear or first in step.needs:
            return True
        if self._ancestors is None:
            self._ancestors = order.ancestors([draft.needs for draft in self.drafts])
        mask = self._ancestors[step.index]
        return bool(mask >> first & 1 or mask & self._unclear)


def _unknown(reference: Reference, at: int, names: Sequence[str], hint: str) -> tuple[str, str]:
    """No such reference: part `at` of its path may be a slip for one of `names`."""
    path, close = reference.path, None
    if len(path) > at and path[at] not in names:
        close = nearest(path[at], names)
    meant = f" (did you mean '{'.'.join([*path[:at], close, *path[at + 1 :]])}'?)" if close else ""
    return f"unknown reference '{reference.dotted}'{meant}", hint


def _instead(name: str, reference: Reference) -> str:
    """The line to write instead of a reference in a program."""
    parts = [part for part in reference.path if part not in ("params", "steps", "outputs", "env")]
    variable = re.sub("[^A-Z0-9_]", "_", "_".join(parts).upper())
    use = f'os.environ["{variable}"]' if name == "python" else f'"${variable}"'
    return f'write env: {{{variable}: "${{{{ {reference.dotted} }}}}"}} and use {use}'


def _scalars(node: Node) -> Iterator[tuple[Scalar, bool]]:
    """All scalars below a node, and whether each is a key."""
    if isinstance(node, Scalar):
        yield node, False
    elif isinstance(node, ListNode):
        for item in node.items:
            yield from _scalars(item)
    else:
        for key, value in node.pairs:
            if isinstance(key, Scalar):
                yield key, True
            yield from _scalars(value)
