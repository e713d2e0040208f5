"""The manual page agentrun.yaml(5), in mdoc: the table of fields in prose around it.

Keys, kinds, defaults and examples come from `fields`; the text here says what no single key can: references, values
with units, and the rules of a run. `page()` is a pure function of both, so a test can say whether the page that is
installed is current. Sentences begin on lines of their own, as mdoc wants them.
"""

from __future__ import annotations

import re
import textwrap

from . import fields
from .document import MAX_DEPTH, MAX_NODES
from .kinds import AnyValue, Either, ListOf, MapOf, Text
from .steps import MAX_STEPS
from .tables import Field, Table

DATE = "November 21, 2026"  # of the last change to what the page says

_HEAD = r"""
.Dd %(date)s
.Dt AGENTRUN.YAML 5
.Os
.Sh NAME
.Nm agentrun.yaml
.Nd job files of agentrun
.Sh DESCRIPTION
A job file says what
.Nm agentrun
runs: steps, their order, and what to do when one of them fails or is
interrupted.
It is one YAML document in UTF-8:
.Bd -literal -offset indent
name: quotes
params: {customer: {default: all}}
deadline: 20m
steps:
- id: rates
  run: ./rates.sh
  retry: {max_attempts: 3, interval: 2s}
- id: quote
  python: quotes:price
  with:
    customer: ${{ params.customer }}
    rates: ${{ steps.rates.outputs.list }}
- run: ./page.sh
  when: on_failure
.Ed
.Pp
A key that is not listed here is an error, and so is the same key twice.
What a scalar means is decided by its key:
.Ql on ,
.Ql 0755
and
.Ql 1.10
are texts where a text is expected.
Where any value can stand, an unquoted scalar is a number only if nothing of
how it is written is lost.
Anchors and aliases work, merge keys and tags do not.
A file has at most 4 MiB, %(steps)d steps, %(nodes)d values and %(depth)d
levels, with all aliases expanded.
"""

_TAIL = r"""
.Sh REFERENCES
.Sq Li ${{ path }}
names a value.
There are no expressions.
.Bl -tag -width Ds
.It Li params.NAME
A parameter of the run.
.It Li steps.ID.outputs.KEY
An output of a step that comes before this one; more parts, as in
.Li list.0.name ,
lead into lists and objects.
.It Li steps.ID.outcome
How such a step ended:
.Li succeeded , failed , timed_out , cancelled
or
.Li skipped .
.It Li run.id , run.scheduled_time
The run, and the tick that it is for.
.It Li env.NAME
A variable of the environment that the run was created in.
.El
.Pp
References are replaced in
.Ic env ,
.Ic with
and
.Ic idempotency_key .
A text that is one reference and nothing else becomes the value itself, of
whatever type; inside of a longer text, and
in the environment, a text is written as it is and everything else as JSON.
A reference to something that is not there fails the step.
.Pp
In
.Ic run ,
.Ic if
and
.Ic python
references are refused: no value becomes program text.
Give the value a name in
.Ic env ,
and use the variable.
.Sh ENVIRONMENT
The process of a step is given the variables of the run's environment (see
.Ic inherit_env ) ,
of
.Ic env_file
and of
.Ic env ,
and these.
Its standard input is
.Pa /dev/null .
.Ql agentrun env JOB
prints all of it.
.Bl -tag -width Ds
.It Ev AGENTRUN_RUN_ID , AGENTRUN_JOB , AGENTRUN_STEP , AGENTRUN_ATTEMPT
Who it is.
.It Ev AGENTRUN_IDEMPOTENCY_KEY
The same for every attempt of this step in this run, across retries and
resumes.
.It Ev AGENTRUN_SCHEDULED_TIME
The tick that this run is for, as an RFC 3339 time, not the time at which it
happens to run; empty if there is none.
.It Ev AGENTRUN_INTERRUPTED
1 where an earlier attempt began and nobody saw its end, else 0.
.It Ev AGENTRUN_OUTPUT
A file that takes the step's outputs, see
.Sx OUTPUTS .
.It Ev AGENTRUN_RUN_DIR
A folder that lasts as long as the record of the run: for what one step leaves
to the next.
.It Ev AGENTRUN_JOB_DIR
A folder that lasts from run to run of the job.
.It Ev AGENTRUN_LAST_SUCCESS
When the job last succeeded, as an RFC 3339 time; empty if never.
.It Ev TMPDIR
A fresh folder of this attempt, removed after it.
.It Ev TRACEPARENT
The step's trace context, as W3C defines it.
.El
.Sh OUTPUTS
What a step gives to others it writes to the file
.Ev AGENTRUN_OUTPUT ,
in one of two forms: lines
.Bd -literal -offset indent
count=8
text<<EOF
several
lines
EOF
.Ed
.Pp
or one JSON object.
What a Python step returns is added: an object key by key, anything else
as
.Li result .
The values of lines are texts, also those that look like numbers, unless
.Ic outputs
declares another type: then
.Li count=8
is the number 8.
.Ql agentrun status -v
shows values as JSON, so that "8" and 8 can be told apart.
Something declared that is missing or of another type fails the step.
A reference to an output that is not among those that a step declares is an
error of the job file; a step that declares none may give any.
All of it has at most 1 MiB: what is larger goes into
.Ev AGENTRUN_RUN_DIR ,
and its name into the outputs.
.Pp
.Li retry_after=30
is no output: it holds the next attempt back for so many seconds, or for a
duration such as
.Li 5m .
.Sh VALUES
.Bl -tag -width Ds
.It Durations
.Li 50ms , 90s , 15m , 2h , 3d , 1h30m .
The unit is never left out, and units go from large to small.
.It Counts
.Li 60 , 200k , 2M .
.El
.Sh THE RULES OF A RUN
.Ss Order
Without
.Ic needs ,
a step follows the step above it.
A step with
.Ic when : on_failure
or
.Li always
and without
.Ic needs
follows every step above it.
Branches that do not depend on a failure go on.
.Ss Conditions
.Ic when
looks at all steps that come before, directly or through others.
Then
.Ic if
is asked, once.
A step that is skipped by its own
.Ic if ,
by
.Ic on_interrupt : skip
or because there is no failure to handle satisfies those that need it.
A step that is skipped because something it needs failed does not, except for
.Li on_failure
and
.Li always
steps.
.Ss Failures
.Ic continue_on_error
covers a step that failed or timed out after its retries: those that need it go
on, its outcome keeps the truth, and
.Li on_failure
steps are not triggered.
It never covers a cancel, a deadline or the budget of the run.
.Ss Retries
Attempts are numbered through, across retries and resumes.
.Ic never_on
beats
.Ic on .
A step can set the pause before its next attempt with
.Li retry_after
among its outputs.
.Ss Interruptions
An attempt that began and whose end nobody saw is treated as
.Ic on_interrupt
says, always with the same idempotency key.
A rerun uses up no retry.
Three interruptions of one step in a row that nobody asked for end it as
failed.
.Ss Budget, deadline, cancel
The step budget counts every attempt that is started, but not conditions and
handlers.
When it is used up, nothing new starts, and what runs finishes.
A deadline or a cancel ends running steps.
After each of the three, steps that have not started are skipped, and then
.Li always
steps run, and
.Li on_failure
steps too unless the run was cancelled, for five minutes at most.
A second cancel ends them.
.Ss Outcome
A run is cancelled, else timed out, else over its budget, else failed if any
step failed and that was not covered, else
succeeded.
"""

# Kinds that the words about a key and its example say enough about.
_PLAIN = (AnyValue, Either, ListOf, MapOf, Table, Text)

_SECTIONS = (
    (fields.JOB, "JOB", "The keys of the file itself."),
    (fields.STEP, "STEPS", "The keys of a step. It has exactly one of run and python."),
    (fields.RETRY, "RETRY", "The keys of retry, in a step or in defaults."),
    (fields.BUDGET, "BUDGET", "The keys of budget."),
    (fields.PARAM, "PARAMETERS", "The keys of a parameter in params."),
)


def page() -> str:
    """The whole page, ending with a newline."""
    limits = {"date": DATE, "steps": MAX_STEPS, "nodes": MAX_NODES, "depth": MAX_DEPTH}
    parts = [(_HEAD % limits).strip()]
    for table, title, opening in _SECTIONS:
        parts.append(f".Sh {title}")
        parts.extend(_sentences(opening))
        parts.extend(_table(table))
    parts.append(_TAIL.strip())
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
