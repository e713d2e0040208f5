"""The state of a shell, handed from one step to the next (`carry: shell`): what a step's shell is given, and leaves.

    PIECE   what the shell executes: a first line of ours that restores, empty lines so that $LINENO is true, the text
            of the step where it stands in the script, and our tail, which writes the state and ends with 0
    STATE   what the tail writes: text that a shell can source, then the trailer: fields between NUL characters

A shell that ends without the trailer has not come to its tail: `exit` ended it, or `set -e`, a signal, a full disk. So
a status of 0 without any state is `exit 0`: the job ends there (engine/judge.py). The last step has no tail, so that
its EXIT trap fires and its status counts.

Only the shell knows its state exactly, so only the shell writes it: with builtins alone, without a subshell (which
would lose errexit), to a file that nobody reads before its trailer is there. What makes the difference, all learnt on
real scripts: a later step begins with an empty environment, or an `unset` comes undone; options come last, and those
of the tail never reach the script; the piece is a file and no `-c` (which turns the status of `${X:?}` into 127); the
tail calls builtins by `\\builtin`, for the script may have a function or an alias of that name.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from ..digest import sha256_hex
from ..model import Job, Step

SHELLS = ("sh", "dash", "ash", "bash")
_MARK = b"agentrun"  # the first and the last field of a trailer
_NEVER_RESTORED = frozenset({"interactive-comments", "posix", "monitor", "privileged", "onecmd", "history", "vi",
                             "emacs", "restricted"})  # fmt: skip
_ON_AT_START = ("braceexpand", "hashall")  # of bash


class Left(NamedTuple):
    """Where a shell leaves what the next one goes on with; `descriptors`: the record that the shim writes of them."""

    state: str
    descriptors: str


class State(NamedTuple):
    """What a state says beside its variables: where it stood, with what status it ended, its options."""

    path: str
    folder: str
    status: int
    options: tuple[str, ...]


def carries(job: Job, step: Step) -> bool:
    """Whether the step is executed with the state of those before it."""
    return job.carry == "shell" and step.run is not None


def hands_on(job: Job, step: Step) -> bool:
    """Whether the steps after it go on with its state: not with that of an instance, or of a handler."""
    return carries(job, step) and not step.has_instances and not step.is_handler


def is_last(job: Job, step: Step) -> bool:
    """Whether no step takes its state: at its end the script ends."""
    return not any(carries(job, one) and not one.is_handler for one in job.steps[step.index + 1 :])


def program_of(shell: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words of `shell` up to the shell itself, and its options. ValueError if none is a shell that can do it."""
    for place, word in enumerate(shell):
        if os.path.basename(word) in SHELLS:
            return list(shell[: place + 1]), list(shell[place + 1 :])
    raise ValueError("no shell of sh or bash")


def is_bash(program: str, path: str) -> bool:
    """Whether it is bash, by whatever name: what `sh` is depends on the machine."""
    if "/" not in program:
        folders = [folder for folder in path.split(":") if folder]
        found = (os.path.join(folder, program) for folder in folders)
        program = next((file for file in found if os.access(file, os.X_OK)), program)
    return os.path.basename(os.path.realpath(program)).startswith("bash")


def read(path: str) -> State | None:
    """The state that a step left; None if its shell never came to write it. OSError; ValueError if it is not whole."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return None
    if not data:
        return None
    fields = data.split(b"\0")
    if len(fields) != 7 or fields[-1] or fields[-2] != _MARK or fields[1] != _MARK:
        raise ValueError(path)
    folder, status, options = fields[2:5]
    if not folder.startswith(b"/"):
        raise ValueError(path)
    return State(path, os.fsdecode(folder.removesuffix(b"\n")), int(status), tuple(options.decode().split(":")))


@lru_cache(maxsize=512)  # nobody writes to a state again
def functions_in(path: str) -> frozenset[str]:
    """The functions in a state, by digests of what `declare -f` prints; empty if it is gone.

    A line of a here-document may be taken for the end of one, in every state.
    """
    found: list[str] = []
    lines: list[bytes] = []
    try:
        with open(path, "rb") as file:
            for line in file:
                if lines or line.rstrip().endswith(b" ()"):
                    lines.append(line)
                if line == b"}\n" and lines:
                    found.append(sha256_hex(b"".join(lines)))
                    lines = []
    except FileNotFoundError:
        pass
    return frozenset(found)


def piece(
    text: str,
    line: int,
    *,
    bash: bool,
    script: str,
    before: State | None,
    given: Mapping[str, str],
    defined: Sequence[tuple[int, str]],
    leaves: Left | None,
    fifo: str = "/dev/null",
) -> str:
    """What the shell executes. `before`: None for the first; `given`: variables to be exported over the state.

    `defined`: texts of earlier steps that do nothing but define functions, with their lines; `leaves`: where the state
    goes to, None for the last step; `fifo`: what its stdout and stderr were at its start.
    """
    parts = [_restore(bash, script, before, given)]
    at = 1
    if before is not None:
        for where, functions in defined:
            at = _place(parts, at, where, functions)
        if before.status:
            parts.append(f"\n{{ . {shlex.quote(before.path)}.status && :; }} 2>/dev/null")
            at += 1
    if line > at:
        parts.append("\n" * (line - at))
    else:
        parts.append((" " if text.startswith("#") else "; ") if line == at == 1 else "\n")
    parts.append(text if text.endswith("\n") else text + "\n")
    if leaves is not None:
        tail = _BASH_TAIL if bash else _SH_TAIL
        for name, path in (("@STATE@", leaves.state), ("@RECORD@", leaves.descriptors), ("@FIFO@", fifo)):
            tail = tail.replace(name, shlex.quote(path))
        parts.append(tail)
    return "".join(parts)


def _place(parts: list[str], at: int, line: int, text: str) -> int:
    """Put a text at its line if that is still to come, else into the next one; the line at which it ends."""
    text = text.removesuffix("\n")
    skipped = max(line - at, 1)
    parts.append("\n" * skipped + text)
    return at + skipped + text.count("\n")


def _restore(bash: bool, script: str, before: State | None, given: Mapping[str, str]) -> str:
    name = f"BASH_ARGV0={shlex.quote(script)}" if bash else ":"
    exports = " ".join(f"{key}={shlex.quote(value)}" for key, value in given.items())
    word = "\\builtin " if bash else "\\"  # functions and aliases of the script are known by then
    exported = f"; {word}export {exports}" if exports else ""
    if before is None:
        return f"{{ {name}; AGENTRUN_SHELL_PID=$PPID{exported}; }} 2>/dev/null"
    parameters = "" if bash else _SH_PARAMETERS
    forget = f"{word}unset __agentrun_status __agentrun_options"
    options = _options_of_bash(before.options) if bash else _options_of_sh(before.options)
    source = shlex.quote(before.path)
    return f"{{ . {source}; {parameters}{name}{exported}; {forget}; {options}; }} >/dev/null 2>&1"


def _options_of_bash(names: Sequence[str]) -> str:
    off = "".join(f" +o {name}" for name in _ON_AT_START if name not in names)
    on = "".join(f" -o {name}" for name in names if name and name not in _NEVER_RESTORED and name not in _ON_AT_START)
    return f"\\builtin set{off}{on}" if off or on else ":"


def _options_of_sh(letters: Sequence[str]) -> str:
    wanted = "".join(letter for letter in "".join(letters) if letter in "aefnuvxCb")
    return f"\\set -{wanted}" if wanted else ":"


# What each says of its shell it says with builtins, into the one file; the trailer is the last of it. A tail never goes
# on with the script: 74 if the state cannot be written. Then, with no redirection of ours any more: a shell that has
# more than the three descriptors that it was started with (and its own, which an exec closes) stops itself, so that the
# shim can look at them (handing.py); 74 if it did not. One that is not the shim's own child would stop for ever: what
# `sudo` started has no descriptors to hand on.
_BASH_TAIL = r"""{ __agentrun_status=$? __agentrun_options=$SHELLOPTS; \builtin set +euxvfC
{ \builtin shopt -p; \builtin declare -p && \builtin umask -p && \builtin printf 'set --' &&
{ [[ $# -eq 0 ]] || \builtin printf ' %q' "$@"; } && \builtin printf '\nSECONDS=%s\n' "$SECONDS" &&
__agentrun_i=${#DIRSTACK[@]} && while ((--__agentrun_i > 0)); do
\builtin printf 'builtin pushd -n -- %q\n' "${DIRSTACK[__agentrun_i]}"; done; \builtin trap -p &&
\builtin declare -f && \builtin declare -F && \builtin alias -p && \builtin printf '\\builtin return 0\n\0agentrun\0' &&
\builtin pwd && \builtin printf '\0%s\0%s\0agentrun\0' "$__agentrun_status" "$__agentrun_options"
} >|@STATE@ || { \builtin trap - EXIT; \builtin exit 74; }; \builtin trap - EXIT ERR DEBUG RETURN CHLD CONT
} 2>/dev/null
__agentrun_i=; [[ /proc/self/fd/0 -ef /dev/null && /proc/self/fd/1 -ef @FIFO@ && /proc/self/fd/2 -ef @FIFO@ ]] ||
__agentrun_i=1; for __agentrun_a in /proc/self/fd/*; do
[[ $__agentrun_a == */[012] || $__agentrun_a == */255 || ! -e $__agentrun_a ]] || __agentrun_i=1; done
[[ $__agentrun_i ]] && { \builtin read -r __agentrun_a </proc/self/stat || \builtin exit 74
__agentrun_a=${__agentrun_a##*) }; __agentrun_a=${__agentrun_a#* }; __agentrun_a=${__agentrun_a#* }
__agentrun_a=${__agentrun_a#* }; [[ ${__agentrun_a%% *} != $$ ]] || {
\builtin kill -STOP $$; [[ -s @RECORD@ ]] || \builtin exit 74; }; }; \builtin exit 0
"""
_SH_TAIL = r"""{ __agentrun_status=$? __agentrun_options=$-; \set +euxvfC; __agentrun_n=0
for __agentrun_a do __agentrun_n=$((__agentrun_n + 1)); \eval "__agentrun_$__agentrun_n=\$__agentrun_a"; done
{ \set && \export -p && \readonly -p && \command printf 'umask ' && \command umask &&
\command printf 'while IFS= read -r __agentrun_a; do eval "alias $__agentrun_a"; done <<\\AGENTRUN_ALIASES\n' &&
\command alias && \command printf 'AGENTRUN_ALIASES\n' && \trap &&
\command printf '\\return 0\n\0agentrun\0' && \command pwd &&
\command printf '\0%s\0%s\0agentrun\0' "$__agentrun_status" "$__agentrun_options"
} >|@STATE@ || { \trap - EXIT; \exit 74; }; \trap - EXIT CHLD CONT
} 2>/dev/null
__agentrun_n=; [ /proc/self/fd/0 -ef /dev/null ] && [ /proc/self/fd/1 -ef @FIFO@ ] && [ /proc/self/fd/2 -ef @FIFO@ ] ||
__agentrun_n=1; for __agentrun_a in /proc/self/fd/*; do case ${__agentrun_a##*/} in [012]|10) ;;
*) [ ! -e "$__agentrun_a" ] || __agentrun_n=1; esac; done
[ "$__agentrun_n" ] && { \command read -r __agentrun_a </proc/self/stat || \exit 74
__agentrun_a=${__agentrun_a##*) }; __agentrun_a=${__agentrun_a#* }; __agentrun_a=${__agentrun_a#* }
__agentrun_a=${__agentrun_a#* }; [ "${__agentrun_a%% *}" != $$ ] || {
\command kill -STOP $$; [ -s @RECORD@ ] || \exit 74; }; }; \exit 0
"""
_SH_PARAMETERS = (
    'set --; __agentrun_a=1; while [ "$__agentrun_a" -le "$__agentrun_n" ]; do'
    ' eval "set -- \\"\\$@\\" \\"\\$__agentrun_$__agentrun_a\\"; unset __agentrun_$__agentrun_a";'
    " __agentrun_a=$((__agentrun_a + 1)); done; unset __agentrun_a __agentrun_n; OPTIND=$OPTIND; "
)
