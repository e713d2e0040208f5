"""What should be durable in all other files, by plain rules for their text: crontabs, units, YAML, other languages.

    crontab, cron.d          which entries there are, and which programs they name
    *.timer                  OnCalendar= and the like
    CronJob, compose         of Kubernetes, of schedulers that read labels; `while true` with a sleep in a command
    .github/workflows        a schedule whose steps start scripts of the tree
    JavaScript, PHP, Ruby, … an endless loop with a sleep in its block, and the schedulers of these languages
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from . import finding
from .finding import Found

_FIELD, _NAMED = r"[\d*][\d*/,~-]*", r"[\d*A-Za-z][\w*/,~-]*"
_NICKNAMES = "reboot|hourly|daily|midnight|weekly|monthly|yearly|annually"
_TIMES = rf"@(?:{_NICKNAMES})|{_FIELD}\s+{_FIELD}\s+{_FIELD}\s+{_NAMED}\s+{_NAMED}"
_ENTRY = re.compile(rf"\s*-?({_TIMES})\s+([^\s\d*|,;=].*)")
_OTHER = re.compile(r"\s*(#.*|[\"']?[A-Za-z_]\w*[\"']?\s*=.*)?\s*")
_SCRIPT = re.compile(r"[\w@%+./~${}-]*[\w-]\.(?:sh|bash|py|rb|pl|php|js|mjs|ts)\b|(?:[\w.~${}-]*/)+[\w.-]+")
_LONGEST_BLOCK = 200  # lines of a loop that are looked at


class Entry(NamedTuple):
    """A line of a crontab."""

    line: int
    schedule: str
    command: str


class Language(NamedTuple):
    """How an endless loop and a sleep look; and the schedulers: what is called, if `library` is in the file."""

    loop: str
    sleep: str
    library: str = "$^"
    schedules: str = "$^"


_C_LOOP = r"\b(?:while\s*\(\s*(?:true|1|!0)\s*\)|for\s*\(\s*;\s*;\s*\))"
_JS = Language(
    _C_LOOP,
    r"\bawait\b.*\b(?:sleep|delay|wait|setTimeout)\w*\s*\(|Atomics\.wait\(",
    r"node-cron|['\"]cron['\"]|node-schedule|croner|agenda|@nestjs/schedule|\bbree\b|toad-scheduler",
    r"\bcron\.schedule\(|new\s+(?:Cron|CronJob)\(|\bscheduleJob\(|\bagenda\.(?:every|schedule)\(|@(?:Cron|Interval)\(",
)
LANGUAGES = {
    **dict.fromkeys((".js", ".mjs", ".cjs", ".ts", ".jsx", ".tsx"), _JS),
    ".php": Language(_C_LOOP, r"\bu?sleep\s*\(", r"Schedul", r"\$schedule->(?:command|call|job|exec)\("),
    ".rb": Language(
        r"\bloop\s+(?:do\b|\{)|\bwhile\s+true\b", r"\bsleep\b", r"rufus|whenever|\bset :output|every ",
        r"^\s*every\s+[\d:'\"].*\bdo\b|\bscheduler\.(?:cron|every)\b",
    ),
    ".pl": Language(r"\bwhile\s*\(\s*1\s*\)|\bfor\s*\(\s*;\s*;\s*\)", r"\bsleep\b"),
    ".go": Language(r"\bfor\s*\{", r"\btime\.Sleep\(", r"robfig/cron|gocron", r"\.AddFunc\(|\.AddJob\(|\.Every\("),
    ".java": Language(_C_LOOP, r"\bThread\.sleep\(", r"Scheduled", r"^\s*@Scheduled\("),
    ".kt": Language(_C_LOOP, r"\b(?:Thread\.sleep|delay)\(", r"Scheduled", r"^\s*@Scheduled\("),
    ".ps1": Language(r"\bwhile\s*\(\s*\$true\s*\)", r"\bStart-Sleep\b"),
    ".lua": Language(r"\bwhile\s+true\s+do\b", r"\bsleep\s*\("),
}  # fmt: skip


# -- crontabs


_OURS = re.compile(r"\bagentrun['\"]?\s+(run|resume|tick)\b")


def entries(text: str, surely: bool) -> list[Entry]:
    """The entries of a crontab. Where its name does not say that it is one (`surely`), every line must fit."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        match = _ENTRY.fullmatch(line)
        if match and _OURS.search(match[2]):
            continue  # it is durable already
        if match:
            found.append(Entry(number, " ".join(match[1].split()), match[2].strip()))
        elif not _OTHER.fullmatch(line) and not surely:
            return []
    return found if surely or any("*" in each.schedule or "@" in each.schedule for each in found) else []


def named_crontab(path: str) -> bool:
    """Whether the name says that it is a crontab."""
    folder, name = os.path.split(path)
    name = name.lower()
    if name.endswith((".cron", ".crontab")) or os.path.basename(folder) in ("cron.d", "crontabs"):
        return True
    return name.startswith(("crontab", "cron.tab")) and os.path.splitext(name)[1] in ("", ".txt", ".example", ".conf")


def may_be_crontab(path: str) -> bool:
    return os.path.splitext(path)[1] in ("", ".txt", ".conf", ".tab")


def scripts(command: str) -> list[str]:
    """The words of a command line that look like files."""
    return [word.removeprefix("./") for word in _SCRIPT.findall(command)]


def crontab(found: list[Entry]) -> Found:
    count = "1 entry" if len(found) == 1 else f"{len(found)} entries"
    return Found(
        found[0].line,
        f"a crontab with {count}",
        "what a reboot cuts off is not gone on with, and a missed time is lost without a word",
        "agentrun convert FILE -o DIR: a job file for each entry",
    )


# -- what other schedulers read


def unit(text: str) -> Iterator[Found]:
    """A timer of systemd."""
    for number, line in enumerate(text.splitlines(), 1):
        if match := re.match(r"\s*(On\w+)\s*=\s*(\S.*)", line):
            yield Found(
                number,
                f"a timer of systemd ({match[1]}={match[2].strip()})",
                "its service begins at the top again after a reboot, and a failure is a line in the journal",
                "a job file with `schedule`, then agentrun install --systemd",
            )
            return


def yaml(text: str, path: str) -> Iterator[Found]:
    """Kubernetes' CronJobs, schedulers that read labels, and loops in the command of a container."""
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        if re.match(r"\s*kind:\s*[\"']?CronJob\b", line):
            yield Found(
                number,
                "a CronJob of Kubernetes",
                "a pod that is evicted begins at the top again, and nobody is told",
                "agentrun run in its command, on a volume: agentrun install --print --kubernetes shows the manifest",
            )
        elif match := re.search(r"\b(ofelia\.job-\w+\.[\w-]+|chadburn\.[\w.-]+|swarm\.cronjob)\.schedule\b", line):
            yield finding.in_memory(number, match[1].partition(".")[0])
        elif "compose" in os.path.basename(path) and _shell_loop("\n".join(lines[number - 1 : number + 8])):
            yield finding.endless(number)


def dockerfile(text: str) -> Iterator[Found]:
    """Lines that are put into a crontab, and loops in the command."""
    for number, line in enumerate(text.splitlines(), 1):
        if re.search(r"[\"']\s*[\d*][\d*/,-]*(\s+[\dA-Za-z*][\w*/,-]*){4}\s+\S.*[\"'].*cron", line):
            yield finding.puts_into_crontab(number)
        elif _shell_loop(line):
            yield finding.endless(number)


def _shell_loop(text: str) -> bool:
    return re.match(r"[^\n]*\bwhile (true|:|\[ 1 \]) ?;?\s*do\b[\s\S]*\bsleep\b", text) is not None


def workflow(text: str) -> Iterator[tuple[int, str, list[str]]]:
    """A schedule of GitHub Actions: its line, its times, and what the file's steps name."""
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        if match := re.match(r"\s*-?\s*cron:\s*[\"']?([^\"'#]+)", line):
            told = [each for each in lines if not re.match(r"\s*(-\s*)?(uses|paths?|key):", each)]
            yield number, match[1].strip(), [word for each in told for word in scripts(each)]
            return


# -- other languages


def code(text: str, language: Language) -> Iterator[Found]:
    """Endless loops with a sleep in their block, and jobs that are given to a scheduler in memory."""
    lines = text.splitlines()
    loop, sleep, schedules = (re.compile(each) for each in (language.loop, language.sleep, language.schedules))
    in_use = re.search(language.library, text) is not None
    for number, line in enumerate(lines, 1):
        if line.lstrip().startswith(("//", "#", "*", "/*", "--")) and not schedules.search(line):
            continue
        if loop.search(line) and any(sleep.search(each) for each in _block(lines, number - 1)):
            yield finding.endless(number)
        elif in_use and (match := schedules.search(line)) and not line.lstrip().startswith(("//", "*", "# ")):
            yield finding.in_memory(number, match[0].strip().strip("(").strip())


def _block(lines: list[str], start: int) -> list[str]:
    """The lines of the block that begins here: as far as lines are indented more than its head."""
    head = lines[start]
    indent = len(head) - len(head.lstrip())
    found = [head]
    for line in lines[start + 1 : start + _LONGEST_BLOCK]:
        deeper = len(line) - len(line.lstrip()) > indent
        if line.strip() and not deeper and line.strip() not in ("{", "do"):
            break
        found.append(line)
    return found
