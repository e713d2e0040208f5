"""The words of agentrun as types: a job as it was written, the states of what runs, and their transitions.

Every room imports this one; it imports nothing of ours. A `Job` is the decoded, checked, complete form of a
job file: defaults are merged, implicit `needs` are spelled out, every duration is a whole number of
milliseconds. What happens to a job lives elsewhere: the decisions in `engine/plan.py`, the rows in `store/`.

Lifecycle and cause are two things. The lifecycle (`State`) says whether something can still change; the
cause (`Outcome`) says how it ended, and exists exactly when the state is `finished`. `interrupted` is the
outcome of an attempt only: an interrupted *run* is derived (it says `running` and nobody holds it).

The dataclasses carry no slots: a decoded job of 10,000 steps is pickled with its snapshot, and without slots
pickle restores instances in C (see `store/`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["queued", "running", "waiting", "finished"]
Outcome = Literal["succeeded", "failed", "timed_out", "over_budget", "cancelled", "skipped", "interrupted"]
When = Literal["on_success", "on_failure", "always"]
OnInterrupt = Literal["rerun", "verify", "ask", "skip", "fail"]
# Why something ended as it did, where the outcome alone does not say. Part of the record, never shown alone.
Reason = Literal[
    "if",            # skipped: its own condition said no
    "if_failed",     # failed: its condition ended neither with 0 nor with 1
    "upstream",      # skipped: something that it needs failed
    "no_failure",    # skipped: a handler with nothing to handle
    "on_interrupt",  # skipped or failed: as its on_interrupt says
    "interrupted",   # failed: three interruptions in a row, or the run's max_resumes
    "cancel",        # cancelled or skipped: somebody cancelled the run
    "deadline",      # timed_out or skipped: the run's deadline
    "budget",        # over_budget or skipped: the run's budget
    "fail_fast",     # cancelled or skipped: another instance failed, and the step says fail_fast
    "instances",     # failed: an instance or a round of it did
    "max",           # failed: as many rounds as `repeat` allows, and its `until` never said enough
    "until_failed",  # failed: its `until` ended neither with 0 nor with 1
    "timeout",       # timed_out: the attempt's own timeout
    "exit",          # failed: its process ended with a status that is not 0
    "signal",        # failed: a signal from elsewhere ended it
    "spawn",         # failed: its process could not be started
    "inputs",        # failed before it started: a reference or a file that is not there
    "outputs",       # failed after it ended: its outputs are unreadable or not as declared
    "child",         # failed, timed_out or over_budget: the run that it is ended so
    "usage",         # failed: what it wrote to $AGENTRUN_USAGE cannot be counted
    "oom",           # over_budget: its own budget of memory
    "cpu",           # over_budget: its own budget of that; so the four that follow
    "processes",
    "output",
    "tokens",
    "cost",
    "shutdown",      # interrupted on request: SIGTERM or SIGINT to the supervisor
    "stuck",         # timed_out: no output and no CPU for its `stuck_after`, and its `on_stuck` says kill
    "overlap",       # skipped: a queued run that a newer one took the place of
    "done",          # succeeded: its shell ended the script here, by `exit 0`; skipped: what comes after it
]

# One table for the three things that have a lifecycle; the database's CHECKs and guarded updates follow it.
TRANSITIONS: Mapping[str, Mapping[State, frozenset[State]]] = {
    # a finished run is reopened by `resume RUN`; a queued one is recorded but was never taken, and is skipped when a
    # newer one takes its place (`concurrency: queue`); a waiting one is parked: only a person's answers are left to
    # wait for, and no process advances it
    "run": {
        "queued": frozenset({"running", "finished"}),
        "running": frozenset({"waiting", "finished"}),
        "waiting": frozenset({"running", "finished"}),
        "finished": frozenset({"running"}),
    },
    # waiting: between two attempts, or for an answer (`on_interrupt: ask`); queued again: reopened by `resume RUN`
    "step": {
        "queued": frozenset({"running", "finished"}),
        "running": frozenset({"waiting", "running", "finished"}),
        "waiting": frozenset({"running", "finished"}),
        "finished": frozenset({"queued", "running"}),
    },
    "attempt": {
        "running": frozenset({"finished"}),
        "finished": frozenset(),
    },
}

JSON = Any  # what json.loads returns


def instance_name(step: str, number: int) -> str:
    """`quote[3]`; the step's id itself for -1."""
    return step if number < 0 else f"{step}[{number}]"


def split_instance(name: str) -> tuple[str, int]:
    """`("quote", 3)` for `quote[3]`; `("quote", -1)` for the step itself."""
    step, bracket, number = name.partition("[")
    return (step, int(number[:-1])) if bracket else (name, -1)


@dataclass(frozen=True)
class Retry:
    """When a failed attempt is followed by another. Durations in milliseconds.

    `on` and `never_on` hold causes as the file writes them, normalised to text: `"75"`, `"100-110"`,
    `"timeout"`, `"signal"`, `"oom"`, `"SIGSEGV"`, or the name of a Python exception.
    """

    max_attempts: int = 1
    interval: int = 1_000
    backoff: float = 2.0
    max_interval: int = 300_000
    jitter: Literal["full", "none"] = "full"
    on: tuple[str, ...] = ()
    never_on: tuple[str, ...] = ()


@dataclass(frozen=True)
class PythonCode:
    """What a Python step calls: `module:function`, or inline source and the line it begins at."""

    module: str | None = None
    function: str | None = None
    source: str | None = None
    line: int = 0


@dataclass(frozen=True)
class Budget:
    """Limits of a run, of one attempt of a step, or of all runs of a job in a day (`Job.daily`); None: no limit.

    `steps`: attempts started, those of handlers not counted (not for a step). `tokens`: input and output together.
    `cost`: billionths of whatever currency the steps report, so that sums are exact. `cpu`: ms. `memory` and
    `output`: bytes. `processes`: at once (not for a day, nor is `memory`).
    """

    steps: int | None = None
    tokens: int | None = None
    cost: int | None = None
    cpu: int | None = None
    memory: int | None = None
    output: int | None = None
    processes: int | None = None


@dataclass(frozen=True)
class Repeat:
    """A durable loop: rounds until the command `until` ends with 0, at most `max`, `interval` ms between two."""

    until: str
    max: int
    interval: int = 0


@dataclass(frozen=True)
class Step:
    """A node of the job, complete. Exactly one of `run`, `python` and `job` is set. Durations in milliseconds.

    `env` and `args` (the file's `with`) may hold `${{ references }}` in any string; so may `idempotency_key`.
    `needs` is always explicit here: names of earlier or later steps, never a circle. `job` is the path of another
    job file, as it is written. `foreach` is a list, whose items may hold references, or a text that is one; it makes
    one instance for each item, `repeat` one for each round; a step has at most one of the two. `verify` is the command
    that says whether an interrupted attempt did its work: there exactly where `on_interrupt` is `verify`. `text_line`
    is the line at which `run` begins in the script that it is a part of, `defines` whether it does nothing but define
    functions (both with the job's `carry`).
    """

    id: str
    index: int
    needs: tuple[str, ...] = ()
    name: str | None = None
    run: str | None = None
    python: PythonCode | None = None
    job: str | None = None
    args: Mapping[str, JSON] = field(default_factory=dict)
    interpreter: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    condition: str | None = None
    when: When = "on_success"
    timeout: int | None = None
    grace: int = 10_000
    retry: Retry = Retry()
    continue_on_error: bool = False
    on_interrupt: OnInterrupt = "rerun"
    verify: str | None = None
    idempotency_key: str | None = None
    outputs: Mapping[str, str] = field(default_factory=dict)
    leave_running: bool = False
    foreach: JSON = None
    max_parallel: int | None = None
    fail_fast: bool = False
    repeat: Repeat | None = None
    budget: Budget = Budget()
    stuck_after: int | None = None
    on_stuck: Literal["report", "kill"] = "report"
    line: int = 0
    text_line: int = 1
    defines: bool = False

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: only what differs from the defaults, which the class itself answers for.

        It halves the time to read a job of 10,000 steps.
        """
        defaults = Step.__dict__
        return {name: value for name, value in self.__dict__.items() if defaults.get(name, Step) != value}

    @property
    def is_handler(self) -> bool:
        """True of a step that looks after a failure or the end: outside budgets and the deadline."""
        return self.when != "on_success"

    @property
    def has_instances(self) -> bool:
        """True of a step that does nothing itself: its instances or rounds do."""
        return self.foreach is not None or self.repeat is not None


for _name in ("args", "env", "outputs"):
    setattr(Step, _name, {})  # dataclass keeps no class attribute for a factory; read only, as the instances are


@dataclass(frozen=True)
class Param:
    """A parameter of the job; without a default it must be given with `-p`."""

    default: JSON = None
    required: bool = False
    description: str | None = None


@dataclass(frozen=True)
class Schedule:
    """One cron expression, spelled out: every minute, hour, ... that it names, in order. `weekdays`: 0 is Sunday.

    `by_clock`: its minute or hour begins with `*`, so it follows the wall clock where that is set (a summer time);
    others name fixed times of the day. `either_day`: its days and its weekdays are both restricted, and one is enough.
    Both as Debian's cron has it (crontab(5) there).
    """

    text: str
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]
    by_clock: bool
    either_day: bool


@dataclass(frozen=True)
class Concurrency:
    """What becomes of a run that begins while others of the same `key` (the job's name, unless given) are at work.

    forbid: it is skipped. queue: it waits, in the place of one that waited before. replace: as queue, and the others
    are cancelled. allow: it begins. `limit`: how many are at work at once; None is 1, and without end for allow.
    """

    policy: Literal["forbid", "queue", "replace", "allow"] = "forbid"
    key: str | None = None
    limit: int | None = None

    @property
    def slots(self) -> int | None:
        """How many runs may be at work at once; None: any number."""
        return self.limit if self.policy == "allow" else self.limit or 1


Event = Literal["failure", "recovery", "missed", "stuck", "waiting", "success"]


@dataclass(frozen=True)
class Target:
    """Where a notification goes. `address`: a URL, a mail address, or the words of a command, by `kind`.

    `key_file`: holds the key that a webhook's body is signed with; mode 0600. Relative paths begin in the job file's
    folder; those of `config.yaml` are absolute already.
    """

    kind: Literal["command", "webhook", "ping", "mail", "apprise"]
    address: str | tuple[str, ...]
    key_file: str | None = None


@dataclass(frozen=True)
class Notify:
    """Who is told of what. `every`: of equal failures in a row the first, and then every so many."""

    on: tuple[Event, ...] = ("failure", "recovery", "missed", "stuck", "waiting")
    to: tuple[Target, ...] = ()
    every: int = 10


@dataclass(frozen=True)
class Keep:
    """What `prune` leaves of a job's finished runs: as many runs, as old in ms, as large in bytes; None: no bound."""

    runs: int | None = None
    age: int | None = None
    size: int | None = None


@dataclass(frozen=True)
class Job:
    """A job file, decoded. `shell` is the command line before the program text, `-c` excluded.

    `working_dir` is absolute, or relative to the folder of the job file; None means that folder. `carry`: the steps
    hand the state of their shell from one to the next; then `script` is their `$0`, `args` are their parameters, and
    `working_dir` None means the folder in which the run was started.
    `inherit_env`: True for all, False for what cron itself would give, or the names to take. `timezone`: a name of the
    zone database; None is the machine's. `jitter` and `start_deadline` in ms. `notify`, `keep`: None is config.yaml's.
    """

    name: str
    steps: tuple[Step, ...]
    description: str | None = None
    params: Mapping[str, Param] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    inherit_env: bool | tuple[str, ...] = True
    env_file: str | None = None
    working_dir: str | None = None
    shell: tuple[str, ...] = ("/bin/sh", "-e")
    carry: Literal["shell"] | None = None
    script: str | None = None
    args: tuple[str, ...] = ()
    deadline: int | None = None
    max_parallel: int | None = None
    max_resumes: int = 10
    budget: Budget = Budget()
    daily: Budget = Budget()
    schedule: tuple[Schedule, ...] = ()
    timezone: str | None = None
    jitter: int = 0
    catch_up: Literal["none", "latest", "all"] = "none"
    start_deadline: int | None = None
    on_tick: Literal["resume", "restart", "ignore"] = "resume"
    concurrency: Concurrency = Concurrency()
    notify: Notify | None = None
    keep: Keep | None = None

    def slots(self, processors: int) -> int:
        """Steps at once. A job that names no number has as many as processors, or as a step of it wants at once."""
        wanted = (step.max_parallel for step in self.steps if step.max_parallel)
        return self.max_parallel or max(processors, *wanted, 1)

    def step(self, step_id: str) -> Step:
        """The step of that id. KeyError if there is none."""
        return self._by_id[step_id]

    @property
    def _by_id(self) -> Mapping[str, Step]:
        index: dict[str, Step] | None = self.__dict__.get("_index")
        if index is None:
            index = {step.id: step for step in self.steps}
            self.__dict__["_index"] = index
        return index


@dataclass(frozen=True)
class Problem:
    """One thing wrong in a job file. `line` and `column` count from 1; `path` as the user named the file."""

    path: str
    line: int
    column: int
    message: str
    source: str = ""      # the line it stands on, for the caret
    hint: str | None = None
