"""What agentrun.yaml(5) says about notices, in mdoc: who hears of what, what a notice is, and how it is delivered."""

NOTICES = r"""
.Sh NOTICES
.Bd -literal -offset indent
notify:
  on: [failure, recovery, missed, stuck, waiting]
  to:
  - {mail: ops@example.org}
  - {webhook: "https://example.org/hooks/cron", key_file: hook.key}
  - {ping: "https://hc-ping.com/5c8a5c0e-8a2c-4f0e-9d6c-0d4b2e3f6a11"}
  - {command: [./page.sh, urgent]}
  every: 10
.Ed
.Pp
Where the job says nothing,
.Ic notify
of config.yaml holds; where it does, that alone.
.Ql agentrun notify JOB
sends a test to all targets but pings and shows what came of each: a monitor
would take a ping for the real thing.
.Ql agentrun notify JOB Fl -event Cm success
pings it as well.
.Ql agentrun notify JOB Fl -list
shows what was told, to whom, and what failed.
.Pp
A run that failed, timed out or was over its budget is a failure; one that was
cancelled or skipped is not.
The same failure again, of the same step for the same cause, is told the first
time and then every
.Ic every
times; those between are on record as folded.
A success ends the row, and is told as a recovery.
Ticks that are missed and steps that are stuck are folded in the same way, until
the next success.
A run that another one called tells nobody: that one does.
.Pp
A notice is one JSON object with the keys schema
.Pq agentrun.notice/1 ,
id, event, job, run, outcome, step, exit_code, error, host, scheduled_time, at,
number and since (the how manieth in a row, and since when; of a stuck step,
since when it does nothing), text (the report that cron mails) and resume (the
command that goes on).
The report has the last lines of a step's log as the step wrote them.
A test has the key test, too.
.Pp
Notices take nothing from cron: it mails what a run prints all the same, each
time, and both come.
Folding is about notices only.
.Ql MAILTO=\(dq\(dq
above the lines of the jobs in the crontab turns cron's mail off.
.Bl -tag -width Ds
.It command
finds it on its standard input.
.It webhook
is sent it by POST.
With it go the headers X-Agentrun-Id, the same at each try, and
X-Agentrun-Event.
With
.Ic key_file ,
X-Agentrun-Signature is sha256= and the HMAC-SHA256, in hex, of the value of
X-Agentrun-Timestamp (seconds since the epoch), a point, and the body.
A redirect is followed to the same host only.
.It ping
is sent the text by POST: at the start to URL/start, after a success to URL,
after a failure to URL/ and the exit status, or to URL/fail where there is
none.
The parameter rid is a UUID made from the run's id.
Nothing is sent for a run that is cancelled: the monitor finds that it did not
end.
A start is sent at once or never, and a ping that failed is not sent again
after a newer one.
.It mail , apprise
are sent the text, with a line above it.
.El
.Pp
A run never waits for a delivery.
The notice is written by the transaction that ends the run; then a process of
its own,
.Ql agentrun deliver ,
sends it: 10 seconds to connect, 30 seconds in all for each target, up to eight
at once.
Only where that could not outlive the command (the main process of a systemd
unit, process 1 of a container) does the command wait for it after its run has
ended, a minute at most.
What fails is tried again after 1, 5 and 30 minutes, 2 and 6 hours, by
.Ql agentrun resume
or by the next run that has something to tell; then it is given up, and stays on
record for 90 days.
No failed delivery fails a run.
After a kill in the middle a notice is sent again: at least once.
A record that
.Ql agentrun doctor Fl -repair
has built again tells nothing of what was before.
.Sh CONFIG.YAML
What holds for all jobs of a user stands in config.yaml, in the folder agentrun
of
.Ev XDG_CONFIG_HOME ,
which is ~/.config if it is not set; of root, in /etc/agentrun/config.yaml where
that is not there.
It is read like a job file.
Its relative paths begin in its own folder.
While it is wrong none of it counts: runs go on and say so on standard error.
Its keys are
.Ic notify ,
.Ic keep
and
.Ic smtp .
"""
