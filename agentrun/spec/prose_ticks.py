"""What agentrun.yaml(5) says about ticks, in mdoc: which one a run is for, what becomes of the others, and overlap."""

TICKS = r"""
.Sh TICKS
.Bd -literal -offset indent
schedule: "*/15 * * * *"
timezone: Europe/Berlin
catch_up: latest
start_deadline: 1h
concurrency: {policy: queue, key: database}
on_tick: resume
.Ed
.Pp
A tick is a moment that
.Ic schedule
names.
Cron, or systemd, starts
.Ql agentrun run JOB ;
agentrun knows what should have been started.
.Pp
A run belongs to a tick if it was given one by
.Fl -scheduled-time ,
or if it was started without a terminal, the job has a
.Ic schedule ,
and its newest tick has not run: it is for that one, whatever the clock says by
then.
The tick is the run's key.
The same tick never runs twice, whoever starts it, and from however many
schedulers: who comes second ends at once, with 0 if that run is over, else
with 75.
A run that was started from a terminal belongs to no tick, nor does one with
.Fl -run-key
or
.Fl -no-tick .
.Pp
A job counts as scheduled from its installation or its first tick on, until
.Ql agentrun uninstall ,
or until its file or its
.Ic schedule
is gone.
From then on every tick has its account:
.Ql agentrun ticks JOB
shows which ran, which were skipped, which were missed, and why.
A tick is missed when nobody has begun it 90 seconds (and the job's
.Ic jitter )
after its time: the machine was off or asleep, or cron was stopped.
That is found out by the next start of the job, or by the next
.Ql agentrun resume ,
which the lines of
.Ql agentrun install
call every minute and after a boot.
.Pp
With
.Ic catch_up : Ar none
a missed tick is on record, and no more.
.Ar latest
runs the newest one late: it stands for all that were missed.
.Ar all
runs them one after the other, oldest first, the newest 100 of them.
Those older than
.Ic start_deadline
are not run.
A tick that is skipped because another run is at work is caught up with as a
missed one is; a tick of a paused job is not.
A schedule that is changed in the file holds from when the file was written.
.Pp
.Ic jitter
spreads the starts of many machines and jobs: each start waits a part of it,
always the same on this machine for this job.
The tick stays what it is.
.Pp
.Ic concurrency
says what becomes of a run that begins while another one of its
.Ic key
is at work: by default, of the same job.
.Ar forbid
skips it, and records because of which run.
.Ar queue
lets it wait, in the place of one that waited before, which is skipped then; it
begins when the other one ends.
.Ar replace
cancels the other one, whose
.Ar always
steps still run, and begins when it has ended.
.Ar allow
begins it at once; more than
.Ic limit
at once are skipped.
A run is at work from its record to its end, also while it is interrupted, or
waits for an answer.
Child runs take the turn of their parent.
What is skipped or waits ends with 75.
.Pp
A start that finds a run of the job interrupted looks after that first:
.Ic on_tick : Ar resume
brings it to its end,
.Ar restart
cancels it,
.Ar ignore
leaves it to
.Ql agentrun resume .
.Pp
The times are those at which Debian's cron fires.
Where a summer time begins, a tick of a fixed time of the day that the clock
leaves out comes right after the gap; where it ends, it comes once.
Ticks whose minutes or hours begin with
.Ql *
follow the clock.
.Ql agentrun next JOB
shows them.
"""
