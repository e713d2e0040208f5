"""The program's entry: forks the shim while this process is still small, then hands over to `cli`.

The shim holds the steps of a run and outlives this process, so it must not carry what this process is about to
load. Only verbs that advance a run in the foreground get one; if they find that they need none, it ends by
itself when they let go of it.
"""

from __future__ import annotations

import gc
import sys

_ADVANCE = ("run", "resume", "supervise", "child")


def main() -> None:
    """`agentrun …`, also as `python -m agentrun …`."""
    gc.disable()  # nothing that a command loads is garbage; the supervisor's loop turns it on again
    if _advances(sys.argv[1:]):
        from .cli import early
        from .step.link import Link

        if sys.argv[1] == "run":
            from .cli.hiding import hide_script

            hide_script()

        try:
            early.link = Link.fork()
        except OSError as error:  # no memory, or too many processes or files
            sys.exit(_cannot_fork(error))
    from .cli.direct import direct

    if work := direct(sys.argv[1:]):
        from .cli.outcome import guarded

        sys.exit(guarded(work))
    from .cli.app import run_app

    sys.exit(run_app())


def _cannot_fork(error: OSError) -> int:
    print(f"agentrun: cannot start the process that is to hold the steps: {error.strerror}", file=sys.stderr)
    print("agentrun: nothing was begun; look at the memory, `ulimit -u` and `ulimit -n`", file=sys.stderr)
    return 74  # EX_IOERR, as for every error of the system (cli/outcome.py)


def _advances(arguments: list[str]) -> bool:
    if len(arguments) < 2 or arguments[0] not in _ADVANCE:
        return False
    return not {"--help", "-h", "--detach", "--plan"}.intersection(arguments)


if __name__ == "__main__":
    main()
