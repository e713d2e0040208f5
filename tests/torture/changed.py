"""Changed job files: a run is cut off as by a power cut, its file changes, and it is resumed.

Each kind of change has a documented answer (agentrun.1 and agentrun.yaml.5, README): a run goes on with the file that
it was begun with, and says so if the file is another now; `--spec` adopts a new one if every finished step is there
with the same definition, else refuses and lists what differs, unless with `--accept-changes`; a file that is wrong is
exit 65, and nothing has happened. What is looked at: the exit status, what is said, which definition of each step did
its work and how often, and the oracle. After a refusal the plain `resume` must finish the run as if nobody had asked.

At larger scales the resume with the change is killed at a point drawn by the seed, and the same command given again.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from . import jobs, oracle
from .place import Gate, Place, Stuck
from .tally import Tally, Wanted

WORKERS = 2
POINTS = 120  # a resume of these jobs reaches some 150


@dataclass(frozen=True)
class Kind:
    """A change, and its answer.

    `old`, `new`: the job's steps, a line each, in the words of `_text`; `new` None: the file is gone. `does`: whose
    work is done in all, in order, as `definition:step`. `spec`: adopt it. `status`, `says`: of that resume, which is
    followed by the plain one if it refuses, and by one with `--accept-changes` if `accepts`. `head`: lines above.
    """

    name: str
    new: tuple[str, ...] | str | None
    does: str
    old: tuple[str, ...] = ("a", "b gate", "c")
    spec: bool = False
    status: int = 0
    says: tuple[str, ...] = ()
    accepts: bool = False
    head: tuple[str, str] = ("", "")
    files: dict[str, tuple[str, str]] = field(default_factory=dict)


CHANGED = "has changed since the run was created; going on with the file as it was"
AS_IT_WAS = "old:a old:b old:c"
LIST = ("a", "b gate foreach=[1,2]", "c")
KINDS = (
    Kind("a comment", "# other words\n", AS_IT_WAS, says=(CHANGED,)),
    Kind("gone", None, AS_IT_WAS, says=("is gone; going on with the file as it was",)),
    Kind("a folder in its place", "/", AS_IT_WAS, says=("cannot be read",)),
    Kind("no job at all", "{[", AS_IT_WAS, says=(CHANGED,)),
    Kind("no job at all, adopted", "{[", AS_IT_WAS, spec=True, status=65),
    Kind("an unknown key, adopted", ("a", "b gate", "c tiemout=3s"), AS_IT_WAS, spec=True, status=65,
         says=("timeout",)),
    Kind("a command", ("a", "b gate", "c new"), AS_IT_WAS, says=(CHANGED,)),
    Kind("a command, adopted", ("a", "b gate", "c new"), "old:a old:b new:c", spec=True),
    Kind("the interrupted command, adopted", ("a", "b new", "c"), "old:a new:b old:c", spec=True),
    Kind("a finished command, adopted", ("a new", "b gate", "c"), AS_IT_WAS, spec=True, status=2,
         says=("step a, which is finished, is defined otherwise", "--accept-changes")),
    Kind("a finished command, accepted", ("a new", "b gate", "c new"), "old:a old:b new:c", spec=True, status=2,
         says=("step a, which is finished, is defined otherwise",), accepts=True),
    Kind("a finished step renamed, adopted", ("z", "b gate", "c"), AS_IT_WAS, spec=True, status=2,
         says=("step a, which is finished, is not in the new file",)),
    Kind("a finished step removed, accepted", ("b gate", "c"), AS_IT_WAS, spec=True, status=2,
         says=("step a, which is finished, is not in the new file",), accepts=True),
    Kind("the interrupted step removed, adopted", ("a", "c"), "old:a old:c", spec=True),
    Kind("a waiting step removed, adopted", ("a", "b gate"), "old:a old:b", spec=True),
    Kind("steps added, adopted", ("a", "n", "b gate", "c", "d"), "old:a old:n old:b old:c old:d", spec=True),
    Kind("another order, adopted", ("c", "b gate needs=[c]", "a"), "old:a old:c old:b", spec=True),
    Kind("what to do about interruptions, adopted", ("a", "b gate on_interrupt=skip", "c"), "old:a old:c", spec=True),
    Kind("a list, in the middle of it", ("a", "b gate foreach=[1,2,3]", "c"), "old:a old:b[0] old:b[1] old:c",
         old=LIST, spec=True, status=2, says=("in the middle of its list",)),
    Kind("a list that comes to be a loop", ("a", "b gate repeat={until: 'true', max: 3}", "c"),
         "old:a old:b[0] old:b[1] old:c", old=LIST, spec=True, status=2, says=("changes between",)),
    Kind("a list that is still to come, adopted", ("a", "b gate", "c foreach=[1,2,3]"),
         "old:a old:b old:c[0] old:c[1] old:c[2]", old=("a", "b gate", "c foreach=[1,2]"), spec=True),
    Kind("a budget used up, adopted", ("a", "b gate", "c"), AS_IT_WAS, spec=True,
         head=("budget: {steps: 2}\n", "budget: {steps: 9}\n")),
    Kind("a script that a step names", ("a", "b gate", "c script"), "old:a old:b new:c",
         old=("a", "b gate", "c script"), says=("mark.sh has changed since the run was created",),
         files={"mark.sh": ('echo "old:$AGENTRUN_STEP" >> "$TORTURE/marks"\n',
                            'echo "new:$AGENTRUN_STEP" >> "$TORTURE/marks"\n')}),
    Kind("the file of a child that runs", ("a", "b child", "c"), "old:a old:x old:y old:c", old=("a", "b child", "c"),
         files={"child.yaml": ("x gate|y", "x new|y new")}),
    Kind("the file of a child to come", ("a", "b gate", "c child"), "old:a old:b new:x new:y",
         old=("a", "b gate", "c child"), files={"child.yaml": ("x|y", "x new|y new")}),
)  # fmt: skip


def torture(wanted: Wanted) -> Tally:
    """The family."""
    tally = Tally("changed")
    with ThreadPoolExecutor(WORKERS) as pool:
        for seed in wanted.seeds(wanted.pick(ci=1, normal=4, full=25)):
            again = seed != wanted.seed
            for first in range(0, len(KINDS), 2 * WORKERS):
                if wanted.is_over:
                    break
                batch = KINDS[first : first + 2 * WORKERS]
                played = pool.map(lambda kind, seed=seed, again=again: play(kind, wanted.package, seed, again), batch)
                for kind, (found, faults) in zip(batch, played, strict=True):
                    tally.add(found, case=f"{kind.name}, seed {seed}{' (killed in the resume)' * again}", faults=faults)
    tally.notes.append(f"{len(KINDS)} kinds of change")
    return tally


def play(kind: Kind, package: Path, seed: int, again: bool) -> tuple[list[str], int]:
    """One run, cut off, changed and resumed. `again`: that resume is killed too."""
    chance = random.Random(f"{seed} {kind.name}")
    with Place(package) as place:
        gate = place.gate("gate")
        try:
            return _play(kind, place, gate, chance.randrange(1, POINTS) if again else 0, seed)
        except Stuck as stuck:
            return [str(stuck)], 1
        finally:
            gate.close()


def _play(kind: Kind, place: Place, gate: Gate, at: int, seed: int) -> tuple[list[str], int]:
    path = place.job("it", kind.head[0] + _text(kind.old, gate))
    for name, (old, _) in kind.files.items():
        (place.root / name).write_text(_file(name, old, gate))
    place.start("run", str(path))
    gate.reached()
    place.kill_all()
    _change(kind, path, gate)
    for name, (_, new) in kind.files.items():
        (place.root / name).write_text(_file(name, new, gate))
    gate.open(9)  # from now on nobody has to wait
    command = ["resume", *(["--spec", str(path)] if kind.spec else []), place.runs()[0]]
    if at:
        place.command(*command, AGENTRUN_FAULTS=f"{place.root}/points:{at}:kill:{seed}")
        place.wait_quiet()
        if not place.unfinished():
            return list(_judge(kind, place, again=True)), 2
    answer = place.command(*command)
    found = list(_answer(kind, answer.returncode, answer.stderr, place))
    if kind.status:
        if kind.accepts:
            command.append("--accept-changes")
        else:
            command = ["resume", place.runs()[0]]
        answer = place.command(*command)
        if answer.returncode:
            found.append(f"after it was refused, {command} ended with {answer.returncode}: {answer.stderr}")
    place.wait_quiet()
    return found + list(_judge(kind, place, again=bool(at))), 2 if at else 1


def _answer(kind: Kind, status: int, said: str, place: Place) -> Iterator[str]:
    """The resume with the change ended and spoke as it should; refused, it has done nothing."""
    if status != kind.status:
        yield f"resume ended with {status}, not with {kind.status}: {said}"
    for word in kind.says:
        if word not in said:
            yield f"'{word}' is not in what resume said: {said}"
    if "Traceback" in said:
        yield said
    if kind.status and not place.unfinished():
        yield "it was refused, and the run is not open any more"


def _judge(kind: Kind, place: Place, *, again: bool) -> Iterator[str]:
    """Who did the work of which step, and the oracle."""
    marks = (place.root / "marks").read_text().split()
    if again:  # killed between its work and its end, a step does it twice
        marks = [mark for mark, _ in groupby(marks)]
    if sorted(marks) != sorted(kind.does.split()) or ("foreach" not in str(kind.old) and marks != kind.does.split()):
        yield f"the work was done by {' '.join(marks)}, not by {kind.does}"
    yield from oracle.violations(place, jobs.Job("it", "", outcome="succeeded"))


def _change(kind: Kind, path: Path, gate: Gate) -> None:
    if kind.new is None or kind.new == "/":
        path.unlink()
        if kind.new:
            path.mkdir()
    elif isinstance(kind.new, str):
        path.write_text(kind.new + path.read_text())
    else:
        path.write_text(kind.head[1] + _text(kind.new, gate))


def _file(name: str, short: str, gate: Gate) -> str:
    return _text(tuple(short.split("|")), gate) if name.endswith(".yaml") else short


def _text(steps: tuple[str, ...], gate: Gate) -> str:
    """A job file: of each step its id, then `gate`, `new`, `script`, `child`, or KEY=VALUE."""
    lines = ["max_parallel: 1", "steps:"]
    for step in steps:
        name, _, rest = step.partition(" ")
        keys, which, work, run = [], "old", "", "$STEP"
        while rest:
            word, _, after = rest.partition(" ")
            if "=" in word:  # the last of them
                key, _, value = rest.partition("=")
                keys.append(f"{key}: {value}")
                break
            rest = after
            which = "new" if word == "new" else which
            work = f"{gate.shell}; " if word == "gate" else work
            run = {"script": "sh ./mark.sh; WORK= $STEP", "child": ""}.get(word, run)
        if run:
            work += f'echo "{which}:$AGENTRUN_STEP" >> "$TORTURE/marks"'
            keys += [f"run: {json.dumps(run)}", f"env: {{WORK: {json.dumps(work)}}}"]
        else:
            keys.append("job: child.yaml")
        lines.append(f"- {{id: {name}, {', '.join(keys)}}}")
    return "\n".join(lines) + "\n"
