"""What agentrun.yaml(5) says about `carry: shell`: a script in steps, what its shells hand on, and what they cannot."""

CARRYING = r"""
.Sh CARRYING
.Bd -literal -offset indent
carry: shell
shell: [/bin/bash]
script: /opt/backup.sh
steps:
- id: setup
  line: 3
  run: |
    set -eu
    TODAY=$(date +%F)
- id: dump
  run: pg_dump wiki > "/backup/$TODAY.sql"
.Ed
.Pp
With
.Ic carry : Ar shell
the steps are one script.
Each has a shell of its own, which begins as the one before it ended: with its
variables and their attributes, arrays, functions, options, aliases, traps,
umask, working folder, positional parameters, the files that
.Ic exec
opened, and
.Ql $? .
That state is part of the checkpoint: a run that is resumed tomorrow still has
the
.Ev TODAY
of yesterday.
It is kept in the run's folder, readable by its owner alone, and removed when
the run has succeeded.
.Ql agentrun convert
makes such jobs of scripts, and
.Ql agentrun run SCRIPT
runs one without a file being written.
.Pp
.Ql exit 0
in the middle ends the script: the steps that come after are skipped, and the
run has succeeded.
With another status, or where
.Ql set -e
ends the shell, the step fails with it.
The trap of
.Ql EXIT
is run when the script ends, not between two steps, and not when the run is told
to stop, to go on later; but a step that fails has run it, and so has one whose
shell was told to end by somebody else.
The run goes on in the folder in which it was started, unless
.Ic working_dir
names another;
.Ev TMPDIR
and
.Ev PATH
are as they were there, and what is made in
.Ev TMPDIR
stays.
.Ic shell
is sh or bash, and its text is a file that the shell reads:
.Ic shell : Ar bash
means
.Ql bash -eo pipefail
here too, a list means what it says.
Of the job's
.Ic env
the first step begins with, of a step's own that step and those after it.
.Pp
An attempt that is run again begins with the state that its step began with.
The state of an instance
.Pq Ic foreach , repeat ,
of a handler, and of a step that failed with
.Ic continue_on_error
is not handed on; nor is there one of a step that took place although nobody saw
its end.
.Ic if
and
.Ic verify
are commands of their own, and see none of it.
.Pp
Where a text stands in the script is known to messages of the shell and to
.Ql $LINENO :
at its
.Ic line ,
which follows the text above and an empty line where it is not said.
.Ql $0
is the job's
.Ic script ;
.Nm sh
cannot be told, and has it as
.Ev AGENTRUN_SCRIPT .
.Ev AGENTRUN_SHELL_PID
stands for
.Ql $$ :
the same in all steps, and the process id of what holds them, so that
.Ql kill -0
finds it as long as the run has not been cut off.
A step that is marked by
.Ic defines
is given to all later ones as it stands, so that messages from its functions
name their lines; in
.Nm sh ,
which cannot print a function, no other function is known to later steps.
.Pp
Not handed on: jobs in the background with
.Ql wait
for them, a coprocess,
.Ev PIPESTATUS ,
what was read ahead of a pipe, the sequence of
.Ev RANDOM .
What needs one of them stays in one step.
"""
