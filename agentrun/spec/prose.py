"""What agentrun.yaml(5) says around the table of fields, in mdoc: an example, and what no single key can say.

References, what the process of a step is given, its outputs, values with units; `prose_run` goes on from there.
Sentences begin on lines of their own, as mdoc wants them.
"""

HEAD = r"""
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

LANGUAGE = r"""
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
.Li succeeded , failed , timed_out , over_budget , cancelled
or
.Li skipped .
.It Li item
In a step with
.Ic foreach :
the item of the instance; more parts, as in
.Li item.name ,
lead into it.
.It Li run.id , run.scheduled_time
The run, and the tick that it is for.
.It Li env.NAME
A variable of the environment that the run was created in.
.El
.Pp
References are replaced in
.Ic env ,
.Ic with ,
.Ic foreach
and
.Ic idempotency_key .
A text that is one reference and nothing else becomes the value itself, of
whatever type; inside of a longer text, and
in the environment, a text is written as it is and everything else as JSON.
A reference to something that is not there fails the step.
.Pp
In
.Ic run ,
.Ic if ,
.Ic until
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
Who it is; the step with the number of its instance or round, as in
.Li quote[3] .
.It Ev AGENTRUN_IDEMPOTENCY_KEY
The same for every attempt of this step, or of this item or round of it, in
this run, across retries and resumes.
.It Ev AGENTRUN_ITEM
In a step with
.Ic foreach :
the item, a text as it is, anything else as JSON.
.It Ev AGENTRUN_ROUND
In a step with
.Ic repeat :
the number of the round, from 1.
.It Ev OUT_KEY
In a step with
.Ic repeat :
the output
.Li KEY
of the round before, a text as it is, anything else as JSON; for
.Ic until ,
that of the round that it is asked about.
The first round is given none.
.It Ev AGENTRUN_SCHEDULED_TIME
The tick that this run is for, as an RFC 3339 time, not the time at which it
happens to run; empty if there is none.
.It Ev AGENTRUN_INTERRUPTED
1 where an earlier attempt began and nobody saw its end, else 0.
.It Ev AGENTRUN_OUTPUT
A file that takes the step's outputs, see
.Sx OUTPUTS .
.It Ev AGENTRUN_USAGE
A file that takes what the step has used, see
.Sx BUDGETS .
.It Ev AGENTRUN_CALLS
The journal of the calls that are checkpoints inside of the step, see
.Sx CHECKPOINTS INSIDE OF PYTHON .
.It Ev PATH
That of the run, and at its end a folder in which
.Ic agentrun
is found.
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
.It Sizes
.Li 512MiB , 1GiB
in powers of 1024,
.Li 500kB , 2GB
in powers of 1000,
.Li 100B .
The unit is never left out.
.It Counts
.Li 60 , 200k , 2M .
.It Money
.Li 20 , 2.50 ,
with at most 9 digits after the point and without a currency: it is that in
which the steps report.
.El
"""
