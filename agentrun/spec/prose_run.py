"""What agentrun.yaml(5) says about how a run goes, in mdoc, after what `prose` says about the language.

Instances, rounds, child jobs, budgets, checkpoints inside of Python, and the rules of a run.
"""

RUNS = r"""
.Sh INSTANCES
.Bd -literal -offset indent
- id: quote
  run: ./ask.sh "$CUSTOMER"
  foreach: ${{ steps.customers.outputs.list }}
  max_parallel: 8
  env: {CUSTOMER: "${{ item.name }}"}
.Ed
.Pp
A step with
.Ic foreach
has an instance for each item, called
.Li quote[0] , quote[1]
and so on by its place in the list.
Each has its own checkpoint, attempts, log and idempotency key.
The list stands in the file, where items can hold references, or it is what one
reference names: an output that is a list (or the JSON text of one, as a shell
step
writes it), or a parameter whose default is one.
It is frozen when it is first known.
.Pp
Items are anything that JSON can say, and no two may be equal: the key of an
instance is made from its item, so that it stays the same in another order.
Where
.Ic idempotency_key
is given it must name the item, and come out differently for each.
.Pp
Steps that need this one wait for all instances.
One that fails stops none of the others, unless
.Ic fail_fast
is true, and fails the step; a resume runs only what is not done.
An empty list succeeds at once.
.Li steps.quote.outputs.KEY
is the list of the instances' values in the order of the items, null where an
instance gave none;
.Li steps.quote.outputs.KEY.0
is that of the first.
.Ic if ,
.Ic timeout ,
.Ic retry ,
.Ic budget
and
.Ic outputs
are those of each instance.
.Sh ROUNDS
.Bd -literal -offset indent
- id: think
  run: ./think.sh "$OUT_notes"
  repeat: {until: 'test "$OUT_done" = yes', max: 50, interval: 10s}
.Ed
.Pp
A step with
.Ic repeat
runs in rounds, called
.Li think[1] , think[2]
and so on.
Each is a checkpoint: what is lost in a crash is at most the round that ran.
After each round
.Ic until
is asked, and its answer is kept: 0 is enough, 1 is one more round, and any
other status fails the step.
The step fails as well if
.Ic max
rounds were not enough, or if a round fails after its retries.
The outputs of a round are given to its
.Ic until
and to the next round as variables
.Ev OUT_KEY ;
those of the last round are the step's.
.Ic timeout ,
.Ic retry
and
.Ic budget
are those of each round.
To an
.Ic idempotency_key
of the file the number of the round is added.
.Ic repeat
and
.Ic foreach
do not go together; a child job with the loop in it can be the step of a
.Ic foreach .
.Sh CHILD JOBS
.Bd -literal -offset indent
- id: settle
  job: settle.yaml
  with: {customer: "${{ params.customer }}"}
.Ed
.Pp
A step with
.Ic job
is a run of another job file, with a record of its own.
.Ic with
gives its parameters, by name; they are values, not texts.
The path is taken from the folder of the file that names it,
.Pa ~
is the user's home, and it holds no references.
What the child's steps give as outputs becomes the step's; of equal names the
later
step's counts.
An attempt that follows a failed or interrupted one goes on with the same
child, from
what it did not get done.
The child is cancelled and resumed with its parent, and what it uses counts
towards the budgets of its parent.
A job cannot run itself, also not through others.
.Ic interpreter
and
.Ic leave_running
do not go with
.Ic job .
.Sh BUDGETS
.Bd -literal -offset indent
budget: {steps: 60, cost: 2.50, memory: 2GiB, daily: {cost: 20}}
steps:
- run: ./ask.sh
  budget: {tokens: 20k, memory: 512MiB}
.Ed
.Pp
The
.Ic budget
of the job is for a whole run, retries and resumes included;
.Ic daily
in it is for all runs of the job in one day, from midnight to midnight of the
machine's
own time zone (what is used after midnight counts on the new day); the
.Ic budget
of a step is for each attempt of each of its instances or rounds.
One in
.Ic defaults
is for each step that has none itself: it is taken as a whole.
.Pp
What crosses a limit of a step is ended at once, with all its processes, and is
.Li over_budget .
It is not tried again, unless
.Ic retry.on
names
.Li budget ,
or
.Li oom
for its memory, which is tried again like other failures.
When the run has crossed a limit other than
.Ic steps ,
all that runs is ended; when it has used up one, nothing new starts.
An attempt that ended by itself with status 0 before anybody could see that it
crossed a
limit has succeeded.
The exit status of a run that is over its budget is 125.
.Pp
Memory, time of processors, number of processes and what is printed are limited
for the whole tree of processes: by cgroups where they can be had, else by
looking every half second.
.Ql agentrun status RUN
says which.
.Pp
Tokens and cost are what the steps report, while they run, in the file
.Ev AGENTRUN_USAGE :
JSON lines with the names of OpenTelemetry,
.Bd -literal -offset indent
{"gen_ai.usage.input_tokens": 812, "gen_ai.usage.output_tokens": 90,
 "gen_ai.request.model": "small", "cost": 0.0021}
.Ed
.Pp
each object in one line.
.Ql agentrun usage add
writes them from a shell, and
.Li usage
of
.Li agentrun.durable
from Python.
A line that cannot be counted fails the step, with the cause
.Li usage .
.Sh STUCK STEPS
.Bd -literal -offset indent
- id: fetch
  run: ./fetch.sh
  stuck_after: 30m
  on_stuck: kill
.Ed
.Pp
An attempt is stuck when none of its processes has used the processor, and
nothing was printed, for
.Ic stuck_after
(1s or more).
A process that is waited for, one that began or ended, and ten milliseconds of
processor time are signs of life; so a loop that sleeps and looks again is
never stuck.
It is looked at ten times in that while, at least every half minute, so it is
found to be stuck up to a tenth later.
Time in which the machine slept does not count.
.Pp
With
.Ic on_stuck : report
the journal says so, once for each silence, and
.Ql agentrun status RUN
does as long as it lasts; nothing else changes.
With
.Li kill
the attempt ends as by its
.Ic timeout :
with all its processes, by TERM, and by KILL after
.Ic grace .
It is
.Li timed_out ,
the exit status of its run is 124, and
.Ic retry
knows it by
.Li stuck
and by
.Li timeout .
An
.Ic if ,
.Ic until
or
.Ic verify
that is ended so has not answered.
.Pp
Neither goes with
.Ic job :
the steps of the other file have their own.
.Sh INTERRUPTIONS
.Bd -literal -offset indent
- id: send
  run: ./send.sh --key "$AGENTRUN_IDEMPOTENCY_KEY"
  on_interrupt: verify
  verify: ./sent.sh --key "$AGENTRUN_IDEMPOTENCY_KEY"
.Ed
.Pp
An attempt that began and whose end nobody saw may have done its work.
.Ic on_interrupt
says what becomes of the step, and of each instance or round for itself:
.Li rerun
runs it again,
.Li skip
and
.Li fail
settle it,
.Li verify
and
.Li ask
find out.
.Pp
.Ic verify
runs before anything else does, in the step's environment and under its
.Ic timeout
and
.Ic budget ,
with the key of the attempt and with
.Ev AGENTRUN_INTERRUPTED
set to 1.
0: it did take place, and the step has succeeded with the outputs that
.Ic verify
wrote to its
.Ev AGENTRUN_OUTPUT ,
which must be as
.Ic outputs
declares them.
1: it did not, and it runs again.
Any other status, or none in time: a person is asked.
A
.Ic verify
that is interrupted itself is asked again, so it must
change nothing.
It uses up no retry, and no step of a budget.
.Pp
.Ic ask
always asks a person.
The step waits, and what does not need it goes on.
When nothing else is left to do, the run is parked: no process stays, the
question is written to standard error, and the exit status is 75.
It goes on with the answer,
.Bd -literal -offset indent
agentrun resume RUN --took-place send
agentrun resume RUN --rerun send
.Ed
.Pp
the first of which settles the step as succeeded, without outputs.
It is refused where the step declares
.Ic outputs ,
or another one reads them: write what they were into a copy of the job file,
adopt that with
.Ql resume RUN --spec FILE ,
and answer then.
The name of a step with instances answers for all that wait, but for those
that are named themselves.
Until then
.Ql agentrun resume
passes over it.
Its deadline goes on counting, and
.Ql agentrun cancel
ends it.
A run that is a step of another one is not parked: its process stays.
After a cancel, or when a deadline or a budget has ended the run, handlers
that ask have five minutes like any other.
.Pp
A step with
.Ic job
has no use for either: an interrupted child goes on by itself, and its steps
have their own
.Ic on_interrupt .
.Sh CHECKPOINTS INSIDE OF PYTHON
.Bd -literal -offset indent
from agentrun.durable import step, output, usage

@step
def ask(question): ...

@step(retry=3, key=lambda page: page.url)
def summarize(page): ...
.Ed
.Pp
.Li agentrun.durable
is there for every Python that a step starts, in whatever environment, from
Python 3.8.
What a function with
.Li @step
returns is a checkpoint inside of the step: on a retry or a resume the script
starts again from its top, and calls that are done return what they returned
before, without running.
Results are JSON, of 1 MiB at most.
Calls are told apart by function, arguments and how many of them came before;
arguments that are no JSON need a
.Li key .
So do calls in a command line that one step starts several times: without it
they are made again.
Those of an
.Ic if
or
.Ic until
always are.
.Li output
adds to the outputs of the step, and
.Li usage
reports what was used.
Outside of a run all three are plain functions that leave nothing behind.
.Ql agentrun status RUN --calls
shows the calls.
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
failed, where it would be run again; a question to a person begins the row anew.
.Ss Budget, deadline, cancel
The step budget counts every attempt that is started, but not conditions and
handlers.
When it is used up, nothing new starts, and what runs finishes.
Any other budget of the run, a deadline or a cancel ends running steps.
After each of them, steps that have not started are skipped, and then
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
