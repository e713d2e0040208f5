"""THE table of the job file's fields: name, kind, what it is for, an example, the default.

The decoder reads with it, the JSON Schema for editors and the manual page are made from it; nothing else lists
the keys. `planned` keys belong to the language and are not built yet: refused like any unknown key, with a kinder
message. `defaults` has those step keys that make sense for many steps at once, taken from the step's own fields.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..model import JSON
from .causes import Cause
from .kinds import AnyValue, Boolean, Choice, Count, Duration, Either, Factor, Integer, ListOf, MapOf, Name, Text
from .tables import Field, Table

JOB_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}"
STEP_ID = r"[A-Za-z_][A-Za-z0-9_-]{0,63}"
SHELLS = {"sh": ("/bin/sh", "-e"), "bash": ("bash", "-eo", "pipefail")}
JSON_TYPES = ("string", "integer", "number", "boolean", "array", "object")

# What a step is told about itself: see "What a step's process is given". AGENTRUN_HOME is the user's to set.
_GIVEN = frozenset(
    "AGENTRUN_" + name
    for name in (
        "RUN_ID", "JOB", "STEP", "ATTEMPT", "IDEMPOTENCY_KEY", "SCHEDULED_TIME", "INTERRUPTED", "OUTPUT", "USAGE",
        "RUN_DIR", "JOB_DIR", "LAST_SUCCESS",
    )
)

_INHERIT = "true, false or a list of names of variables"
_SHELL = "sh, bash or a list such as [/usr/bin/zsh, -e]"

_job_name = Name("a name of letters, digits, '_', '.' and '-', at most 64 in all", JOB_NAME)
_step_id = Name("an id of letters, digits, '_' and '-' that begins with a letter or '_', at most 64 in all", STEP_ID)
_param_name = Name("names of letters, digits, '_' and '-' that begin with a letter or '_'", STEP_ID)
_output_key = Name("keys of letters, digits, '_' and '-' that begin with a letter or '_'", STEP_ID)
_variable = Name("names of variables (letters, digits and '_')", r"[A-Za-z_][A-Za-z0-9_]*", _GIVEN)
_path = Text("a path")
_env = MapOf("a mapping of variables", _variable, Text(blank=True))
_causes = ListOf("a list of causes", Cause())

_owners: dict[str, str] = {}


def _table(
    what: str,
    title: str,
    fields: tuple[Field, ...],
    planned: tuple[str, ...] = (),
    rules: Mapping[str, JSON] | None = None,
) -> Table:
    return Table(what, title, {field.name: field for field in fields}, frozenset(planned), _owners, rules or {})


RETRY = _table(
    "a mapping such as {max_attempts: 3}",
    "'retry'",
    (
        Field("max_attempts", Integer(1), "Attempts in all, the first counted.", "3", "1"),
        Field("interval", Duration(zero=True), "Pause before the second attempt.", "2s", "1s"),
        Field("backoff", Factor(), "Each further pause is this many times as long.", "2", "2"),
        Field("max_interval", Duration(zero=True), "No pause is longer.", "5m", "5m"),
        Field(
            "jitter", Choice(("full", "none")),
            "full: a pause is a random part of its length, so that many jobs do not come back at the same time.",
            "full", "full",
        ),
        Field(
            "on", _causes,
            "What is tried again: exit statuses and ranges of them, timeout, signal, oom, names of signals, and names"
            " of Python exceptions or of their base classes.",
            "[timeout, signal, 75, 100-110]", "everything but the exit statuses 126 and 127",
        ),
        Field("never_on", _causes, "What is not tried again, even if on names it.", "[65, ValueError]", "nothing"),
    ),
)

BUDGET = _table(
    "a mapping such as {steps: 60}",
    "'budget'",
    (
        Field(
            "steps", Count(),
            "Attempts started in the whole run, those of handlers not counted. When they are used up, nothing new"
            " starts, and the run is over its budget.",
            "60", "no limit",
        ),
    ),
    planned=("tokens", "cost", "cpu", "memory", "output"),
)

PARAM = _table(
    "a mapping such as {default: all}",
    "a parameter",
    (
        Field("default", AnyValue(), "Its value if none is given; without one, it must be given.", "all"),
        Field("required", Boolean(), "false: without a value it is null.", "false", "true if there is no default"),
        Field("description", Text(), "What it is for.", "Whom to ask for"),
    ),
)

STEP = _table(
    "a mapping such as {run: ./fetch.sh}",
    "a step",
    (
        Field(
            "id", _step_id, "Its name in needs, references, logs and records; unique in the job.",
            "rates", "made from name, else step-N by position",
        ),
        Field("name", Text(), "What people see.", "Ask for a quote", "its id"),
        Field(
            "run", Text("a command"), "A program text for the job's shell.",
            './ask.sh "$CUSTOMER"', references="program",
        ),
        Field(
            "python", Text("module:function or Python code"),
            "A function to call in a fresh Python, as module:function; or code, whose main function is called if it"
            " has one. What it returns is the step's outputs.",
            "quotes:price", references="program",
        ),
        Field(
            "with", MapOf("a mapping of arguments", _param_name, AnyValue()), "Arguments for python, by name.",
            '{topic: "${{ params.topic }}"}', attribute="args", references="values",
        ),
        Field("interpreter", _path, "The Python that runs python.", ".venv/bin/python", "the one that runs agentrun"),
        Field(
            "needs", ListOf("a list of step ids", _step_id),
            "The steps that must be done before it; [] for none. Handlers (when: on_failure or always) without"
            " needs come after every step above them.",
            "[rates, customers]", "the step above",
        ),
        Field(
            "env", _env, "Variables for this step, on top of the job's.",
            '{CUSTOMER: "${{ params.customer }}"}', references="values",
        ),
        Field(
            "if", Text("a command"),
            "A command in the step's environment: 0 runs the step, 1 skips it, any other status fails it.",
            'test -s in/rates.csv', attribute="condition", references="program",
        ),
        Field(
            "when", Choice(("on_success", "on_failure", "always")),
            "What must have become of the steps that come before: none failed, one failed, or either.",
            "on_failure", "on_success",
        ),
        Field("timeout", Duration(), "How long one attempt may take.", "2m", "no limit"),
        Field("grace", Duration(zero=True), "From the request to end (TERM) to the end (KILL).", "10s", "10s"),
        Field(
            "retry", RETRY, "When a failed attempt is followed by another.",
            "{max_attempts: 3, interval: 2s}", "never",
        ),
        Field("continue_on_error", Boolean(), "The run goes on as if the step had not failed.", "true", "false"),
        Field(
            "on_interrupt", Choice(("rerun", "skip", "fail")),
            "What to do about an attempt that began and whose end nobody saw.", "fail", "rerun",
        ),
        Field(
            "idempotency_key", Text(),
            "The same for all attempts: what a receiver can tell repetitions by.",
            '"${{ params.customer }}-${{ run.scheduled_time }}"', "made from the run and the step", references="values",
        ),
        Field(
            "outputs", MapOf("a mapping of output keys to types", _output_key, Choice(JSON_TYPES)),
            "Outputs that must be there, with their JSON types; else the step fails.", "{count: integer, list: array}",
        ),
        Field(
            "leave_running", Boolean(),
            "What the step leaves in the background may outlive the run. Without it such processes may go on while"
            " the run does, and are ended without a word at its end.",
            "true", "false",
        ),
    ),
    planned=(
        "foreach", "repeat", "approve", "wait", "job", "sandbox", "verify", "stuck_after", "on_stuck", "budget",
        "secrets", "fail_fast", "max_parallel",
    ),
    rules={
        "oneOf": [{"required": ["run"]}, {"required": ["python"]}],
        "dependencies": {"with": ["python"], "interpreter": ["python"]},
    },
)

DEFAULTS = _table(
    "a mapping of keys of steps",
    "'defaults'",
    tuple(
        STEP.fields[name]
        for name in ("timeout", "grace", "retry", "interpreter", "continue_on_error", "on_interrupt")
    ),
)

JOB = _table(
    "a mapping of keys",
    "the job",
    (
        Field("name", _job_name, "Its name in records and commands.", "quotes", "the file's name without its ending"),
        Field("description", Text(), "What it is for.", "Freight quotes, every 15 minutes"),
        Field(
            "params", MapOf("a mapping of parameters", _param_name, PARAM),
            "What can be given with -p.", "{customer: {default: all}}",
        ),
        Field("env", _env, "Variables for all steps.", "{LANG: C.UTF-8}", references="values"),
        Field("env_file", _path, "A file of NAME=value lines, below env.", ".env"),
        Field(
            "inherit_env", Either(_INHERIT, Boolean(_INHERIT), ListOf(_INHERIT, _variable)),
            "Whether steps see the environment that the run was created in: true, false (only what cron would give),"
            " or the names to take from it.",
            "[PATH, HOME]", "true",
        ),
        Field("working_dir", _path, "The folder in which steps run.", "/opt/quotes", "the job file's folder"),
        Field(
            "shell", Either(_SHELL, Choice(("sh", "bash"), _SHELL), ListOf(_SHELL, Text(_SHELL), empty=False)),
            "What runs the commands: sh is /bin/sh -e, bash is bash -eo pipefail; a list is a program and its options,"
            " and -c and the command follow. With sh a pipe succeeds when its last command does, as in"
            " nosuchdump | gzip > backup.gz: use bash where commands have pipes.",
            "bash", "sh",
        ),
        Field(
            "deadline", Duration(), "How long the whole run may take, waits and retries included.",
            "20m", "no limit",
        ),
        Field("max_parallel", Integer(1), "Steps at once.", "4", "the number of processors"),
        Field("max_resumes", Integer(0), "A run that is interrupted more often is given up.", "10", "10"),
        Field("budget", BUDGET, "Limits of the whole run.", "{steps: 60}"),
        Field(
            "defaults", DEFAULTS,
            "Keys for every step that does not have them itself; retry is merged key by key.", "{timeout: 5m}",
        ),
        Field(
            "steps", ListOf("a list of steps", STEP, empty=False), "What to do.",
            "[{run: ./fetch.sh}]", required=True,
        ),
    ),
    planned=(
        "schedule", "timezone", "concurrency", "catch_up", "start_deadline", "jitter", "on_tick", "notify",
        "secrets", "keep",
    ),
)

TABLES = {"job": JOB, "steps": STEP, "retry": RETRY, "params": PARAM, "budget": BUDGET, "defaults": DEFAULTS}

for _owner in (STEP, JOB, RETRY, BUDGET, PARAM):
    for _name in _owner.fields:
        _owners.setdefault(_name, _owner.title)
