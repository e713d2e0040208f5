"""THE table of the job file's fields: name, kind, what it is for, an example, the default.

The decoder reads with it, the JSON Schema for editors and the manual page are made from it; nothing else lists
the keys. `planned` keys belong to the language and are not built yet: refused like any unknown key, with a kinder
message. `defaults` has those step keys that make sense for many steps at once, taken from the step's own fields.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..model import JSON
from . import carrying
from .amounts import Cost, Count, Duration, Size
from .causes import Cause
from .instances import MAX_ROUNDS, Items
from .kinds import AnyValue, Boolean, Choice, Either, Factor, Integer, ListOf, MapOf, Name, Text
from .notify import KEEP, NOTIFY, TARGET
from .schedules import Schedules, Zone
from .tables import Field, ScalarOr, Table

JOB_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}"
STEP_ID = r"[A-Za-z_][A-Za-z0-9_-]{0,63}"
SHELLS = {"sh": ("/bin/sh", "-e"), "bash": ("bash", "-eo", "pipefail")}
JSON_TYPES = ("string", "integer", "number", "boolean", "array", "object")

# What a step is told about itself: see "What a step's process is given". AGENTRUN_HOME is the user's to set.
_GIVEN = frozenset(
    "AGENTRUN_" + name
    for name in (
        "RUN_ID", "JOB", "STEP", "ATTEMPT", "IDEMPOTENCY_KEY", "SCHEDULED_TIME", "INTERRUPTED", "OUTPUT", "USAGE",
        "RUN_DIR", "JOB_DIR", "LAST_SUCCESS", "CALLS", "ITEM", "ROUND", "PYTHON", "SCRIPT", "SHELL_PID",
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
    absent: Mapping[str, str] | None = None,
) -> Table:
    by_name = {field.name: field for field in fields}
    return Table(what, title, by_name, frozenset(planned), _owners, rules or {}, absent or {})


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
            "What is tried again: exit statuses and ranges of them, timeout, stuck, signal, oom (its budget of memory),"
            " budget (any other of its budgets), spawn, outputs, usage (what it wrote to AGENTRUN_USAGE cannot be"
            " counted), names of signals, and names of Python exceptions or of their base classes.",
            "[timeout, signal, oom, 75, 100-110]", "everything but budget and the exit statuses 126 and 127",
        ),
        Field("never_on", _causes, "What is not tried again, even if on names it.", "[65, ValueError]", "nothing"),
    ),
)

REPEAT = _table(
    "a mapping such as {until: test -s done, max: 50}",
    "'repeat'",
    (
        Field(
            "until", Text("a command"),
            "Asked after each round, in the step's environment and with the outputs of the round as OUT_*: 0 is enough,"
            " 1 is one more, any other status fails the step.",
            '\'test "$OUT_done" = yes\'', required=True, references="program",
            why="a command that ends with 0 when it is enough, as until: 'test \"$OUT_done\" = yes'",
        ),
        Field(
            "max", Integer(1, MAX_ROUNDS), "Rounds at most; the step fails if until does not say enough by then.",
            "50", required=True,
            why="a loop without a bound turns until somebody looks: say how many rounds are enough, as max: 50",
        ),
        Field("interval", Duration(zero=True), "Pause between two rounds.", "10s", "none"),
    ),
)

_TOKENS = "Tokens that are reported in AGENTRUN_USAGE, input and output together."
_COST = "Money that is reported in AGENTRUN_USAGE, in whatever currency."
_CPU = "Time of processors, of all its processes together."
_OUTPUT = "What it prints."

STEP_BUDGET = _table(
    "a mapping such as {tokens: 20k, memory: 512MiB}",
    "a step's 'budget'",
    (
        Field("tokens", Count(), _TOKENS, "20k", "no limit"),
        Field("cost", Cost(), _COST, "0.50", "no limit"),
        Field("cpu", Duration(), _CPU, "10m", "no limit"),
        Field("memory", Size(), "Memory of all its processes together.", "512MiB", "no limit"),
        Field("output", Size(), _OUTPUT, "10MiB", "no limit"),
        Field("processes", Count(), "Processes at once.", "100", "no limit"),
    ),
    absent={
        "steps": "the attempts of a step are bounded by 'retry', its rounds by 'repeat'",
        "daily": "a day has a budget for the whole job: in the 'budget' of the job",
        "timeout": "it is a key of the step itself",
    },
)

_OF_A_DAY = "a day sums up what is used, and nobody uses {} up: it belongs into the 'budget' around it"

DAILY = _table(
    "a mapping such as {cost: 20}",
    "'daily'",
    (
        Field("steps", Count(), "Attempts started, those of handlers not counted.", "1k", "no limit"),
        Field("tokens", Count(), _TOKENS, "2M", "no limit"),
        Field("cost", Cost(), _COST, "20", "no limit"),
        Field("cpu", Duration(), _CPU, "2h", "no limit"),
        Field("output", Size(), _OUTPUT, "1GiB", "no limit"),
    ),
    absent={name: _OF_A_DAY.format(name) for name in ("memory", "processes")},
)

BUDGET = _table(
    "a mapping such as {steps: 60, cost: 2.50}",
    "'budget'",
    (
        Field(
            "steps", Count(),
            "Attempts started in the whole run, those of handlers not counted. When they are used up, nothing new"
            " starts, and the run is over its budget.",
            "60", "no limit",
        ),
        Field("tokens", Count(), _TOKENS, "200k", "no limit"),
        Field("cost", Cost(), _COST, "2.50", "no limit"),
        Field("cpu", Duration(), _CPU, "10m", "no limit"),
        Field("memory", Size(), "Memory of all processes of the run together.", "2GiB", "no limit"),
        Field("output", Size(), "What all its steps print.", "200MiB", "no limit"),
        Field("processes", Count(), "Processes of the run at once.", "500", "no limit"),
        Field("daily", DAILY, "Limits of all runs of the job in one day.", "{cost: 20}", "no limit"),
    ),
    absent={"timeout": "how long a run may take is its 'deadline'"},
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
            "job", _path,
            "Another job file, from the folder of this one: the step is a run of it, with a record of its own. Its"
            " outputs become the step's.",
            "other.yaml",
        ),
        Field(
            "with", MapOf("a mapping of arguments", _param_name, AnyValue()),
            "Arguments for python, or params for job, by name.",
            '{topic: "${{ params.topic }}"}', attribute="args", references="values",
        ),
        Field("interpreter", _path, "The Python that runs python.", ".venv/bin/python", "the one that runs agentrun"),
        Field(
            "foreach", Items(),
            "Run the step once for each item of a list, or of what one reference names; each is an instance with a"
            " checkpoint of its own, see INSTANCES.",
            "${{ steps.customers.outputs.list }}", references="values",
        ),
        Field("max_parallel", Integer(1), "Instances at once.", "8", "as many steps as the job's allows"),
        Field(
            "fail_fast", Boolean(), "When one instance fails, end those that run and start no others.", "true", "false",
        ),
        Field(
            "repeat", REPEAT, "Run the step in rounds, each with a checkpoint of its own, see ROUNDS.",
            "{until: 'test \"$OUT_done\" = yes', max: 50, interval: 10s}",
        ),
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
            "stuck_after", Duration(),
            "An attempt that has used no CPU and printed nothing for so long is stuck, see STUCK STEPS.",
            "30m", "never",
        ),
        Field(
            "on_stuck", Choice(("report", "kill")),
            "What becomes of a stuck attempt: it is reported, or ended as by its timeout.", "kill", "report",
        ),
        Field(
            "retry", RETRY, "When a failed attempt is followed by another.",
            "{max_attempts: 3, interval: 2s}", "never",
        ),
        Field(
            "budget", STEP_BUDGET, "Limits of each attempt of each instance, see BUDGETS.",
            "{tokens: 20k, memory: 512MiB, output: 10MiB}", "no limits",
        ),
        Field("continue_on_error", Boolean(), "The run goes on as if the step had not failed.", "true", "false"),
        Field(
            "on_interrupt", Choice(("rerun", "verify", "ask", "skip", "fail")),
            "What to do about an attempt that began and whose end nobody saw: run it again, let verify say, ask a"
            " person, skip or fail the step, see INTERRUPTIONS.",
            "ask", "rerun",
        ),
        Field(
            "verify", Text("a command"),
            "With on_interrupt: verify. Says whether an interrupted attempt did its work: 0, it did, and the step has"
            " succeeded; 1, it did not, and runs again; any other status: a person is asked.",
            './sent.sh "$AGENTRUN_IDEMPOTENCY_KEY"', references="program",
        ),
        Field(
            "idempotency_key", Text(),
            "The same for all attempts: what a receiver can tell repetitions by. A step with foreach must name the"
            " item in it; with repeat the number of the round is added to it.",
            '"${{ params.customer }}-${{ run.scheduled_time }}"', "made from the run and the step or its item or round",
            references="values",
        ),
        Field(
            "outputs", MapOf("a mapping of output keys to types", _output_key, Choice(JSON_TYPES)),
            "Outputs that must be there, with their JSON types; else the step fails.", "{count: integer, list: array}",
        ),
        *carrying.OF_A_STEP,
        Field(
            "leave_running", Boolean(),
            "What the step leaves in the background may outlive the run. Without it such processes may go on while"
            " the run does, and are ended without a word at its end.",
            "true", "false",
        ),
    ),
    planned=("approve", "wait", "sandbox", "secrets"),
    rules={
        "oneOf": [{"required": ["run"]}, {"required": ["python"]}, {"required": ["job"]}],
        "dependencies": {
            "with": {"anyOf": [{"required": ["python"]}, {"required": ["job"]}]},
            "interpreter": ["python"],
            "leave_running": {"not": {"required": ["job"]}},
            "verify": {"not": {"required": ["job"]}},
            "line": ["run"],
            "defines": ["run"],
            "stuck_after": {"not": {"required": ["job"]}},
            "on_stuck": {"not": {"required": ["job"]}},
            "max_parallel": ["foreach"],
            "fail_fast": ["foreach"],
            "repeat": {"not": {"required": ["foreach"]}},
        },
        "if": {"required": ["on_interrupt"], "properties": {"on_interrupt": {"const": "verify"}}},
        "then": {"required": ["verify"]},
        "else": {"not": {"required": ["on_interrupt", "verify"]}},
    },
)

DEFAULTS = _table(
    "a mapping of keys of steps",
    "'defaults'",
    tuple(
        STEP.fields[name]
        for name in (
            "timeout", "grace", "stuck_after", "on_stuck", "retry", "budget", "interpreter", "continue_on_error",
            "on_interrupt",
        )
    ),
)

_POLICIES = Choice(("forbid", "queue", "replace", "allow"))

CONCURRENCY = _table(
    "a mapping such as {policy: queue, key: database}",
    "'concurrency'",
    (
        Field(
            "policy", _POLICIES,
            "forbid skips a run while another one is at work; queue lets it wait, in the place of one that waited"
            " before; replace cancels the other one; allow begins it at once.",
            "queue", "forbid",
        ),
        Field(
            "key", Text(), "Runs of all jobs with this key exclude each other; it may name params.",
            '"mail-${{ params.customer }}"', "the job's name", references="values",
        ),
        Field("limit", Integer(1), "How many runs may be at work at once.", "3", "1; no limit for allow"),
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
        Field(
            "working_dir", _path, "The folder in which steps run.", "/opt/quotes",
            "the job file's folder; with carry, the one in which the run was started",
        ),
        Field(
            "shell", Either(_SHELL, Choice(("sh", "bash"), _SHELL), ListOf(_SHELL, Text(_SHELL), empty=False)),
            "What runs the commands: sh is /bin/sh -e, bash is bash -eo pipefail; a list is a program and its options,"
            " and -c and the command follow. With sh a pipe succeeds when its last command does, as in"
            " nosuchdump | gzip > backup.gz: use bash where commands have pipes.",
            "bash", "sh",
        ),
        *carrying.OF_A_JOB,
        Field(
            "deadline", Duration(), "How long the whole run may take, waits and retries included.",
            "20m", "no limit",
        ),
        Field(
            "max_parallel", Integer(1), "Steps at once.", "4",
            "the number of processors, or the largest max_parallel of a step where that is more",
        ),
        Field("max_resumes", Integer(0), "A run that is interrupted more often is given up.", "10", "10"),
        Field("budget", BUDGET, "Limits of the whole run, see BUDGETS.", "{steps: 60, cost: 2.50}", "no limits"),
        Field(
            "schedule", Schedules(),
            "When cron starts it: an expression as in a crontab, or a list of them. agentrun itself starts nothing; it"
            " knows by this which tick a start is for, and which were missed, see TICKS.",
            '"*/15 * * * *"',
        ),
        Field("timezone", Zone(), "The zone of the schedule.", "Europe/Riga", "the machine's"),
        Field(
            "catch_up", Choice(("none", "latest", "all")),
            "Which of the ticks that were missed are run late: none, the newest, or all (the newest 100), see TICKS.",
            "latest", "none",
        ),
        Field("start_deadline", Duration(), "A missed tick that is older is not run late.", "1h", "no limit"),
        Field(
            "jitter", Duration(),
            "Spread the scheduled starts: each waits a part of this, always the same for this machine and job.",
            "5m", "none",
        ),
        Field(
            "on_tick", Choice(("resume", "restart", "ignore")),
            "A start that finds the job's last run interrupted: resume brings that to its end first, restart cancels"
            " it, ignore leaves it.",
            "restart", "resume",
        ),
        Field(
            "concurrency", ScalarOr(_POLICIES, CONCURRENCY),
            "What becomes of a run that begins while another one is at work, see TICKS.", "queue", "forbid",
            references="values",
        ),
        Field(
            "notify", NOTIFY, "Who is told of what, see NOTICES.",
            "{on: [failure, recovery], to: [{mail: ops@example.org}], every: 10}", "what config.yaml says",
        ),
        Field(
            "keep", KEEP, "What is left of the job's finished runs when old ones are removed, see KEEPING RUNS.",
            "{runs: 200, days: 30}", "what config.yaml says, else {runs: 10000}",
        ),
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
        "secrets",
    ),
)

TABLES = {
    "job": JOB, "steps": STEP, "retry": RETRY, "repeat": REPEAT, "budget": BUDGET, "step-budget": STEP_BUDGET,
    "daily": DAILY, "params": PARAM, "defaults": DEFAULTS,
    "concurrency": CONCURRENCY, "notify": NOTIFY, "targets": TARGET, "keep": KEEP,
}

for _owner in (STEP, JOB, RETRY, REPEAT, BUDGET, PARAM, CONCURRENCY, NOTIFY, TARGET, KEEP):
    for _name in _owner.fields:
        _owners.setdefault(_name, _owner.title)
