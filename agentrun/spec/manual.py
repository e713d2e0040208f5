"""The manual page agentrun.yaml(5), in mdoc: the table of fields in prose around it.

Keys, kinds, defaults and examples come from `fields`; what no single key can say from `prose*`.
`page()` is a pure function of them, so a test can say whether the page that is installed is current. Sentences begin
on lines of their own, as mdoc wants them.
"""

from __future__ import annotations

import re
import textwrap

from . import config, fields
from .document import MAX_DEPTH, MAX_NODES
from .instances import Items
from .kinds import AnyValue, Either, ListOf, MapOf, Text
from .notify import KEEP, NOTIFY, TARGET
from .prose import HEAD, LANGUAGE
from .prose_carry import CARRYING
from .prose_keeping import KEEPING
from .prose_notices import NOTICES
from .prose_run import RUNS
from .prose_ticks import TICKS
from .steps import MAX_STEPS
from .tables import Field, Table

DATE = "November 21, 2026"  # of the last change to what the page says

# Kinds that the words about a key and its example say enough about.
_PLAIN = (AnyValue, Either, Items, ListOf, MapOf, Table, Text)

_SECTIONS = (
    (fields.JOB, "JOB", "The keys of the file itself."),
    (fields.STEP, "STEPS", "The keys of a step. It has exactly one of run, python and job."),
    (fields.RETRY, "RETRY", "The keys of retry, in a step or in defaults."),
    (fields.REPEAT, "REPEAT", "The keys of repeat."),
    (fields.BUDGET, "BUDGET", "The keys of budget in the job itself, see BUDGETS."),
    (fields.DAILY, "DAILY BUDGET", "The keys of daily."),
    (fields.STEP_BUDGET, "BUDGET OF A STEP", "The keys of budget in a step or in defaults."),
    (fields.CONCURRENCY, "CONCURRENCY", "The keys of concurrency, where it is a mapping, see TICKS."),
    (fields.PARAM, "PARAMETERS", "The keys of a parameter in params."),
    (NOTIFY, "NOTIFY", "The keys of notify, in the job or in config.yaml, see NOTICES."),
    (TARGET, "TARGETS OF NOTIFY", "The keys of an item of to. It has exactly one of them but key_file."),
    (KEEP, "KEEP", "The keys of keep, in the job or in config.yaml. What is beyond one of them goes."),
)


def page() -> str:
    """The whole page, ending with a newline."""
    limits = {"date": DATE, "steps": MAX_STEPS, "nodes": MAX_NODES, "depth": MAX_DEPTH}
    parts = [(HEAD % limits).strip()]
    for table, title, opening in _SECTIONS:
        parts.append(f".Sh {title}")
        parts.extend(_sentences(opening))
        parts.extend(_table(table))
    parts += [LANGUAGE.strip(), TICKS.strip(), RUNS.strip(), CARRYING.strip(), KEEPING.strip(), NOTICES.strip()]
    parts += _table(config.CONFIG)
    parts += [".Pp", "The keys of smtp:", *_table(config.SMTP)]
    return "\n".join(parts) + "\n"


def _table(table: Table) -> list[str]:
    lines = [".Bl -tag -width Ds"]
    for field in table.fields.values():
        lines.extend(_field(field))
    return [*lines, ".El"]


def _field(field: Field) -> list[str]:
    """One key: its name, what it is for, what it expects, its default, an example."""
    lines = [f".It Ic {field.name}", *_sentences(field.doc)]
    if not isinstance(field.kind, _PLAIN):
        lines.extend(_sentences(f"Expects {field.kind.what}."))
    if field.default:
        lines.extend(_sentences(f"Default: {field.default}."))
    return [*lines, ".Bd -literal -offset indent -compact", _escaped(f"{field.name}: {field.example}"), ".Ed"]


def _sentences(text: str) -> list[str]:
    """Each sentence begins a line; none is longer than an editor is wide."""
    sentences = re.split(r"(?<=[.]) (?=[A-Z])", text)
    return [_escaped(line) for sentence in sentences for line in textwrap.wrap(sentence, 78, break_on_hyphens=False)]


def _escaped(text: str) -> str:
    """Plain text as roff takes it: no escape, and no request at the beginning of a line."""
    text = text.replace("\\", r"\e")
    return r"\&" + text if text.startswith((".", "'")) else text
