"""What agentrun.yaml(5) says about `keep`: which runs are removed, when, and which never are."""

KEEPING = r"""
.Sh KEEPING RUNS
.Bd -literal -offset indent
keep: {runs: 200, days: 30, size: 2GiB}
.Ed
.Pp
A finished run that is beyond any of these limits is removed, the oldest first,
with its rows in the record, its logs and all else in its folder: by
.Ql agentrun prune ,
and by itself, at most once a day, at the end of a run of any job.
What a job does not say,
.Pa config.yaml
says; where nobody says anything, 10000 runs of each job are kept.
.Ql keep: {}
keeps all.
What counts is the job file as the last run had it.
.Pp
Whatever the limits, these stay: a run that is not finished; the last run of a
job, and its last success; a run from which another one that stays went on
.Pq Ql resume --from ;
what counts today against the daily budget of a job; and a run of which a
process was left running.
A child run goes with the run that called it, and is not counted.
.Pp
With a run its key is forgotten: the same
.Fl -run-key
would be a new run.
Ticks that did not run are forgotten when they are older than what is kept.
The room in the database is used again for what comes, the file does not become
smaller.
Backups of it keep what was removed for some hours more.
"""
