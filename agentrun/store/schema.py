"""The tables, as a list of migrations; the n-th entry brings a database from version n-1 to n.

The schema refuses impossible rows: STRICT types, an outcome exactly when something is finished, and only the
words of `model.py`. Times are milliseconds since the epoch, UTC. Primary keys are clustered on the run, so a
turn of the loop touches few pages, and what is asked often (`status`) is answered from `runs` alone.

The views `job_status`, `step_history` and `journal` are for people with Datasette or sqlite-utils: they are
documented in the manual and stay as they are.
"""

from __future__ import annotations

_STATES = "('queued', 'running', 'waiting', 'finished')"
_ENDS = "('succeeded', 'failed', 'timed_out', 'over_budget', 'cancelled', 'skipped')"
_ATTEMPT_ENDS = "('succeeded', 'failed', 'timed_out', 'over_budget', 'cancelled', 'interrupted')"

_V1 = f"""
CREATE TABLE snapshots (              -- job files as they were, shared by all runs of the same text
    sha256      TEXT PRIMARY KEY,
    text        TEXT NOT NULL,
    decoder     TEXT NOT NULL,        -- which program wrote `decoded`; another one decodes the text again
    decoded     BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE runs (
    id              TEXT PRIMARY KEY,
    job             TEXT NOT NULL,
    file            TEXT NOT NULL,
    snapshot        TEXT NOT NULL REFERENCES snapshots (sha256),
    params          TEXT NOT NULL CHECK (json_valid(params)),
    run_key         TEXT,
    scheduled_time  INTEGER,
    parent          TEXT REFERENCES runs (id),     -- the run whose finished steps it took over (--from)
    state           TEXT NOT NULL CHECK (state IN {_STATES}),
    outcome         TEXT CHECK (outcome IN {_ENDS}),
    reason          TEXT,
    error           TEXT,
    exit_code       INTEGER,
    closing         TEXT CHECK (closing IN ('cancelled', 'timed_out', 'over_budget')),
    closing_at      INTEGER,
    created_at      INTEGER NOT NULL,
    started_at      INTEGER,
    finished_at     INTEGER,
    epoch           INTEGER NOT NULL DEFAULT 0,    -- the fence: grows with each owner, named by each write
    owner           TEXT,                          -- JSON: pid, start time, boot id, user
    resumes         INTEGER NOT NULL DEFAULT 0,    -- how often it was taken over after an interruption
    elapsed         INTEGER NOT NULL DEFAULT 0,    -- ms counted against the deadline, up to `seen`
    boot_id         TEXT,
    seen            INTEGER,                       -- CLOCK_BOOTTIME in ms at the last write of an owner
    results_seen    INTEGER NOT NULL DEFAULT 0,    -- how far the run's results file is in this record
    stopped         INTEGER NOT NULL DEFAULT 0 CHECK (stopped IN (0, 1)),   -- left on request: no failure
    started_steps   INTEGER NOT NULL DEFAULT 0,    -- attempts counted against budget.steps
    steps_total     INTEGER NOT NULL,
    steps_done      INTEGER NOT NULL DEFAULT 0,
    CHECK ((state = 'finished') = (outcome IS NOT NULL)),
    CHECK ((state = 'finished') = (finished_at IS NOT NULL)),
    CHECK ((closing IS NULL) = (closing_at IS NULL)),
    CHECK (steps_done BETWEEN 0 AND steps_total)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX runs_by_key ON runs (job, run_key) WHERE run_key IS NOT NULL;
CREATE INDEX runs_by_job ON runs (job, id);
CREATE INDEX runs_open ON runs (id) WHERE state <> 'finished';
CREATE INDEX runs_succeeded ON runs (job, finished_at) WHERE outcome = 'succeeded';

CREATE TABLE steps (                  -- one row for a step instance, from its first transition on
    run_id          TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    instance        TEXT NOT NULL,    -- the step's id
    position        INTEGER NOT NULL,
    state           TEXT NOT NULL CHECK (state IN {_STATES}),
    outcome         TEXT CHECK (outcome IN {_ENDS}),
    reason          TEXT,
    covered         INTEGER NOT NULL DEFAULT 0 CHECK (covered IN (0, 1)),   -- by continue_on_error
    asked           INTEGER NOT NULL DEFAULT 0 CHECK (asked IN (0, 1)),     -- its `if` said go
    attempt         INTEGER NOT NULL DEFAULT 0,    -- the number of the last attempt
    tries           INTEGER NOT NULL DEFAULT 0,    -- as of that attempt's start, as are the interruptions
    interruptions   INTEGER NOT NULL DEFAULT 0,
    due             INTEGER,
    idempotency_key TEXT,
    inputs          TEXT CHECK (inputs IS NULL OR json_valid(inputs)),
    outputs         TEXT CHECK (outputs IS NULL OR json_valid(outputs)),
    exit_code       INTEGER,
    signal          INTEGER,
    error           TEXT,
    started_at      INTEGER,
    finished_at     INTEGER,
    PRIMARY KEY (run_id, instance),
    CHECK ((state = 'finished') = (outcome IS NOT NULL)),
    CHECK ((state = 'finished') = (finished_at IS NOT NULL)),
    CHECK ((state = 'waiting') = (due IS NOT NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX steps_active ON steps (run_id, position) WHERE state IN ('running', 'waiting');

CREATE TABLE attempts (
    run_id          TEXT NOT NULL,
    instance        TEXT NOT NULL,
    number          INTEGER NOT NULL CHECK (number >= 1),
    epoch           INTEGER NOT NULL,
    state           TEXT NOT NULL CHECK (state IN ('running', 'finished')),
    outcome         TEXT CHECK (outcome IN {_ATTEMPT_ENDS}),
    reason          TEXT,
    requested       INTEGER NOT NULL DEFAULT 0 CHECK (requested IN (0, 1)),  -- an interruption asked for
    exit_code       INTEGER,
    signal          INTEGER,
    error           TEXT,
    causes          TEXT,             -- JSON list, what `retry.on` is matched with
    exception       TEXT,             -- JSON: type, message, traceback of a Python step
    retry_after     INTEGER,
    cpu_ms          INTEGER,
    max_rss_kib     INTEGER,
    output_bytes    INTEGER,
    started_at      INTEGER NOT NULL,
    finished_at     INTEGER,
    PRIMARY KEY (run_id, instance, number),
    FOREIGN KEY (run_id, instance) REFERENCES steps (run_id, instance) ON DELETE CASCADE,
    CHECK ((state = 'finished') = (outcome IS NOT NULL)),
    CHECK ((state = 'finished') = (finished_at IS NOT NULL))
) STRICT, WITHOUT ROWID;

CREATE TABLE events (                 -- the journal: written with the rows that it explains, never changed
    run_id      TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    seq         INTEGER NOT NULL,     -- 1, 2, 3, … without a gap
    at          INTEGER NOT NULL,
    kind        TEXT NOT NULL,
    instance    TEXT,
    attempt     INTEGER,
    by          TEXT NOT NULL,
    detail      TEXT CHECK (detail IS NULL OR json_valid(detail)),
    PRIMARY KEY (run_id, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE wishes (                 -- what others want of the run's owner
    id          INTEGER PRIMARY KEY,
    run_id      TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    kind        TEXT NOT NULL CHECK (kind IN ('cancel')),
    by          TEXT NOT NULL,
    at          INTEGER NOT NULL,
    taken_at    INTEGER
) STRICT;
CREATE INDEX wishes_open ON wishes (run_id) WHERE taken_at IS NULL;

CREATE VIEW job_status AS
    SELECT job, id AS run, state, outcome, reason,
           strftime('%Y-%m-%dT%H:%M:%fZ', created_at / 1000.0, 'unixepoch') AS created_at,
           strftime('%Y-%m-%dT%H:%M:%fZ', finished_at / 1000.0, 'unixepoch') AS finished_at,
           (finished_at - started_at) / 1000.0 AS seconds,
           steps_done, steps_total, resumes, error
    FROM runs;
CREATE VIEW step_history AS
    SELECT runs.job, attempts.run_id AS run, attempts.instance AS step, attempts.number AS attempt,
           attempts.state, attempts.outcome, attempts.reason, attempts.exit_code, attempts.signal,
           strftime('%Y-%m-%dT%H:%M:%fZ', attempts.started_at / 1000.0, 'unixepoch') AS started_at,
           (attempts.finished_at - attempts.started_at) / 1000.0 AS seconds,
           attempts.cpu_ms / 1000.0 AS cpu_seconds, attempts.max_rss_kib, attempts.output_bytes,
           attempts.error
    FROM attempts JOIN runs ON runs.id = attempts.run_id;
CREATE VIEW journal AS
    SELECT runs.job, events.run_id AS run, events.seq,
           strftime('%Y-%m-%dT%H:%M:%fZ', events.at / 1000.0, 'unixepoch') AS at,
           events.kind, events.instance AS step, events.attempt, events.by, events.detail
    FROM events JOIN runs ON runs.id = events.run_id;
"""

# Instances, child runs, what was spent.
_V2 = """
ALTER TABLE runs ADD COLUMN caller TEXT REFERENCES runs (id);  -- the run of which this is a step
ALTER TABLE runs ADD COLUMN caller_instance TEXT;              -- and which step of it
ALTER TABLE runs ADD COLUMN enforced_by TEXT;                  -- what holds its limits, in words
CREATE UNIQUE INDEX runs_by_caller ON runs (caller, caller_instance) WHERE caller IS NOT NULL;
CREATE INDEX runs_of_their_own ON runs (job, id) WHERE caller IS NULL;

-- `instance` is the step's id, or `id[n]` for instance or round n of it
ALTER TABLE steps ADD COLUMN number INTEGER NOT NULL DEFAULT -1 CHECK (number >= -1);   -- that n; -1: the step itself
ALTER TABLE steps ADD COLUMN instances INTEGER;                -- of a step: how many it has, or rounds were begun
ALTER TABLE steps ADD COLUMN answered INTEGER NOT NULL DEFAULT 0;    -- of a step: rounds whose `until` said: again
ALTER TABLE steps ADD COLUMN usage_seen INTEGER NOT NULL DEFAULT 0;  -- the same of the usage file of its condition
ALTER TABLE steps ADD COLUMN calls_seen INTEGER NOT NULL DEFAULT 0;  -- how far its journal of calls is in this record

ALTER TABLE attempts ADD COLUMN usage_seen INTEGER NOT NULL DEFAULT 0;  -- how far its usage file is in this record

CREATE TABLE items (                  -- the list of a step with `foreach`, frozen when it was first known
    run_id      TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    step        TEXT NOT NULL,
    number      INTEGER NOT NULL,     -- of the instance
    place       INTEGER NOT NULL,     -- in the list; -1: it is not in the list any more
    key         TEXT NOT NULL,        -- the idempotency key of the instance, by which it is known in another list
    item        TEXT NOT NULL CHECK (json_valid(item)),
    PRIMARY KEY (run_id, step, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE usage (                  -- what attempts said that they used
    run_id          TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    instance        TEXT NOT NULL,
    attempt         INTEGER NOT NULL,
    model           TEXT NOT NULL,    -- '' where none was named
    day             TEXT NOT NULL,    -- 2026-11-20, by the machine's clock and zone
    counted         INTEGER NOT NULL CHECK (counted IN (0, 1)),  -- against budgets: handlers are not
    calls           INTEGER NOT NULL,
    input_tokens    INTEGER NOT NULL CHECK (input_tokens >= 0),
    output_tokens   INTEGER NOT NULL CHECK (output_tokens >= 0),
    cost            INTEGER NOT NULL CHECK (cost >= 0),          -- billionths
    PRIMARY KEY (run_id, instance, attempt, model, day)
) STRICT, WITHOUT ROWID;

CREATE TABLE spending (               -- what a run itself took of its budgets, day by day; usage is beside it
    run_id          TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    day             TEXT NOT NULL,
    steps           INTEGER NOT NULL, -- attempts started
    cpu_ms          INTEGER NOT NULL,
    output_bytes    INTEGER NOT NULL,
    PRIMARY KEY (run_id, day)
) STRICT, WITHOUT ROWID;
CREATE INDEX usage_by_day ON usage (day);
CREATE INDEX spending_by_day ON spending (day);

CREATE TABLE calls (                  -- what functions of Python steps returned (agentrun.durable)
    run_id      TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    instance    TEXT NOT NULL,
    seq         INTEGER NOT NULL,     -- 1, 2, 3, … in the order of their ends
    attempt     INTEGER NOT NULL,
    function    TEXT NOT NULL,
    arguments   TEXT NOT NULL CHECK (json_valid(arguments)),
    key         TEXT,
    result      TEXT CHECK (result IS NULL OR json_valid(result)),
    error       TEXT,
    started_at  INTEGER NOT NULL,
    ms          INTEGER NOT NULL,
    PRIMARY KEY (run_id, instance, seq)
) STRICT, WITHOUT ROWID;

CREATE VIEW spent AS
    SELECT runs.job, usage.run_id AS run, usage.instance AS step, usage.attempt, usage.model, usage.day,
           usage.calls, usage.input_tokens, usage.output_tokens, usage.cost / 1e9 AS cost
    FROM usage JOIN runs ON runs.id = usage.run_id;
"""

# The numbers of the lines of journals (store/redo.py).
_V3 = """
ALTER TABLE runs ADD COLUMN writes INTEGER NOT NULL DEFAULT 0;  -- transactions of it so far: each has its line there
"""

# What was interrupted and is in doubt (store/questions.py). SQLite changes no CHECK: two tables are made again.
_V4 = f"""
ALTER TABLE runs ADD COLUMN wake_at INTEGER CHECK (wake_at IS NULL OR state = 'waiting');  -- `elapsed` to go on at

CREATE TABLE steps_anew (             -- one row for a step instance, from its first transition on
    run_id          TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    instance        TEXT NOT NULL,    -- the step's id, or `id[n]` for instance or round n of it
    position        INTEGER NOT NULL,
    state           TEXT NOT NULL CHECK (state IN {_STATES}),
    outcome         TEXT CHECK (outcome IN {_ENDS}),
    reason          TEXT,
    covered         INTEGER NOT NULL DEFAULT 0 CHECK (covered IN (0, 1)),   -- by continue_on_error
    asked           INTEGER NOT NULL DEFAULT 0 CHECK (asked IN (0, 1)),     -- its `if` said go
    attempt         INTEGER NOT NULL DEFAULT 0,    -- the number of the last attempt
    tries           INTEGER NOT NULL DEFAULT 0,    -- as of that attempt's start, as are the interruptions
    interruptions   INTEGER NOT NULL DEFAULT 0,
    due             INTEGER,
    idempotency_key TEXT,
    inputs          TEXT CHECK (inputs IS NULL OR json_valid(inputs)),
    outputs         TEXT CHECK (outputs IS NULL OR json_valid(outputs)),
    exit_code       INTEGER,
    signal          INTEGER,
    error           TEXT,
    started_at      INTEGER,
    finished_at     INTEGER,
    number          INTEGER NOT NULL DEFAULT -1 CHECK (number >= -1),   -- that n; -1: the step itself
    instances       INTEGER,                       -- of a step: how many it has, or rounds were begun
    answered        INTEGER NOT NULL DEFAULT 0,    -- of a step: rounds whose `until` said: again
    usage_seen      INTEGER NOT NULL DEFAULT 0,    -- how far the usage file of its condition is in this record
    calls_seen      INTEGER NOT NULL DEFAULT 0,    -- how far its journal of calls is in this record
    verifying       INTEGER NOT NULL DEFAULT 0 CHECK (verifying IN (0, 1)),   -- its `verify` is asked, or to be asked
    question        TEXT,                          -- what a person is asked, in words
    PRIMARY KEY (run_id, instance),
    CHECK ((state = 'finished') = (outcome IS NOT NULL)),
    CHECK ((state = 'finished') = (finished_at IS NOT NULL)),
    CHECK ((state = 'waiting') = (due IS NOT NULL OR question IS NOT NULL)),
    CHECK (due IS NULL OR question IS NULL),
    CHECK (NOT verifying OR (state IN ('running', 'waiting') AND question IS NULL))
) STRICT, WITHOUT ROWID;
INSERT INTO steps_anew (
    run_id, instance, position, state, outcome, reason, covered, asked, attempt, tries, interruptions, due,
    idempotency_key, inputs, outputs, exit_code, signal, error, started_at, finished_at, number, instances, answered,
    usage_seen, calls_seen
) SELECT
    run_id, instance, position, state, outcome, reason, covered, asked, attempt, tries, interruptions, due,
    idempotency_key, inputs, outputs, exit_code, signal, error, started_at, finished_at, number, instances, answered,
    usage_seen, calls_seen
FROM steps;
DROP TABLE steps;
ALTER TABLE steps_anew RENAME TO steps;
CREATE INDEX steps_active ON steps (run_id, position) WHERE state IN ('running', 'waiting');

CREATE TABLE wishes_anew (            -- what others want of the run's owner
    run_id      TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    id          INTEGER NOT NULL,     -- 1, 2, 3, … in the run
    kind        TEXT NOT NULL CHECK (kind IN ('cancel', 'took_place', 'rerun')),
    instance    TEXT,                 -- the step or instance that an answer is about
    by          TEXT NOT NULL,
    at          INTEGER NOT NULL,
    taken_at    INTEGER,
    PRIMARY KEY (run_id, id),
    CHECK ((kind = 'cancel') = (instance IS NULL))
) STRICT, WITHOUT ROWID;
INSERT INTO wishes_anew (id, run_id, kind, by, at, taken_at) SELECT id, run_id, kind, by, at, taken_at FROM wishes;
DROP TABLE wishes;
ALTER TABLE wishes_anew RENAME TO wishes;
CREATE INDEX wishes_open ON wishes (run_id) WHERE taken_at IS NULL;
"""

# Jobs that a cron daemon starts, what became of their ticks, and runs that exclude each other (store/jobs.py).
_V5 = """
ALTER TABLE runs ADD COLUMN overlap_key TEXT;      -- at most `overlap_limit` runs of one key are at work at once
ALTER TABLE runs ADD COLUMN overlap_limit INTEGER CHECK (overlap_limit >= 1);    -- NULL: any number
ALTER TABLE runs ADD COLUMN in_line INTEGER NOT NULL DEFAULT 0 CHECK (in_line IN (0, 1));   -- it waits for its turn
CREATE INDEX runs_overlapping ON runs (overlap_key) WHERE state <> 'finished' AND overlap_key IS NOT NULL;
CREATE INDEX runs_by_tick ON runs (job, scheduled_time) WHERE scheduled_time IS NOT NULL;
-- without these, each run that is removed would be looked for in all others
CREATE INDEX runs_by_parent ON runs (parent) WHERE parent IS NOT NULL;
CREATE INDEX runs_by_snapshot ON runs (snapshot);

CREATE TABLE jobs (                   -- what is known of a job beyond its runs: from its first tick, install or pause
    name        TEXT PRIMARY KEY,
    file        TEXT NOT NULL,        -- its job file, absolute
    file_seen   TEXT,                 -- its time and size when `schedule` was read from it
    schedule    TEXT CHECK (schedule IS NULL OR json_valid(schedule)),   -- in force; NULL: it counts as not scheduled
    settled     INTEGER,              -- every tick up to this moment is accounted for
    due_at      INTEGER,              -- when the first one behind it has to begin at the latest: then it is missed
    installed   TEXT CHECK (installed IS NULL OR json_valid(installed)), -- where `install` has put it
    paused_at   INTEGER,
    paused_by   TEXT,
    paused_why  TEXT,
    gone_at     INTEGER,              -- when its file was first found to be gone
    pruned_to   INTEGER,              -- the newest tick that was a run's and is not known any more (store/removal.py)
    CHECK ((schedule IS NULL) OR settled IS NOT NULL),
    CHECK ((paused_at IS NULL) = (paused_by IS NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX jobs_due ON jobs (due_at) WHERE due_at IS NOT NULL;

CREATE TABLE ticks (                  -- what did not run, and why; a tick that ran is a row of `runs`
    job         TEXT NOT NULL,
    first       INTEGER NOT NULL,     -- the tick, or the first of a row of them with one fate
    last        INTEGER NOT NULL,
    number      INTEGER NOT NULL CHECK (number >= 1),   -- of them
    fate        TEXT NOT NULL CHECK (fate IN ('skipped', 'missed')),
    reason      TEXT NOT NULL CHECK (reason IN ('overlap', 'paused', 'catch_up', 'start_deadline', 'limit', 'file')),
    because     TEXT,                 -- the run that was in the way
    scheduled   INTEGER NOT NULL DEFAULT 1 CHECK (scheduled IN (0, 1)),   -- 0: started by somebody, at that moment
    at          INTEGER NOT NULL,     -- when it was found out, last
    by          TEXT NOT NULL,
    PRIMARY KEY (job, first, fate),
    CHECK (last >= first)
) STRICT, WITHOUT ROWID;
CREATE INDEX ticks_by_time ON ticks (at);

CREATE TABLE hearers (                -- who wants to hear of a run that goes on (store/notices.py)
    run_id      TEXT PRIMARY KEY,
    notify      TEXT NOT NULL CHECK (json_valid(notify))
) STRICT, WITHOUT ROWID;

CREATE TABLE notices (                -- the outbox: who is told of what, and what came of it
    seq         INTEGER PRIMARY KEY,
    id          TEXT NOT NULL,        -- what a receiver can tell repetitions by
    state       TEXT NOT NULL CHECK (state IN ('raised', 'queued', 'sent', 'failed', 'folded')),
    event       TEXT NOT NULL,
    job         TEXT NOT NULL,
    run_id      TEXT,
    at          INTEGER NOT NULL,     -- when it happened
    said        TEXT NOT NULL CHECK (json_valid(said)),    -- the notice; of a raised one: what happened
    target      TEXT CHECK (target IS NULL OR json_valid(target)),
    tries       INTEGER NOT NULL DEFAULT 0,
    due         INTEGER,
    error       TEXT,                 -- what came of the last try, or why it was folded
    done_at     INTEGER,
    CHECK ((state = 'raised') = (target IS NULL)),
    CHECK ((state IN ('raised', 'queued')) = (due IS NOT NULL)),
    CHECK ((due IS NULL) = (done_at IS NOT NULL))
) STRICT;
CREATE INDEX notices_due ON notices (due) WHERE due IS NOT NULL;
CREATE INDEX notices_by_job ON notices (job, seq);
CREATE INDEX notices_done ON notices (done_at) WHERE done_at IS NOT NULL;

CREATE TABLE streaks (                -- what has happened to a job again and again
    job         TEXT NOT NULL,
    event       TEXT NOT NULL,
    cause       TEXT NOT NULL,
    since       INTEGER NOT NULL,
    number      INTEGER NOT NULL CHECK (number >= 1),
    PRIMARY KEY (job, event)
) STRICT, WITHOUT ROWID;

CREATE INDEX events_stuck ON events (run_id, instance) WHERE kind IN ('step_stuck', 'step_unstuck');
"""

MIGRATIONS: tuple[str, ...] = (_V1, _V2, _V3, _V4, _V5)
VERSION = len(MIGRATIONS)
APPLICATION_ID = 0x61677275  # "agru": what `file` and we recognise the database by
