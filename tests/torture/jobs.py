"""The jobs that are tortured: each small, each with another part of the language; all steps write the ledger."""

from __future__ import annotations

from dataclasses import dataclass, field

from .place import Place


@dataclass(frozen=True)
class Job:
    """`needs`: for each step those that must have ended before it begins. `outcome`: how the run has to end.

    `policies`: `on_interrupt` of the steps that do not say rerun. `texts`: further files, by name.
    """

    name: str
    text: str
    needs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    outcome: str = "succeeded"
    policies: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    steps: int = 3

    def write(self, place: Place) -> str:
        """Its files; the path of the job."""
        for name, text in self.texts.items():
            place.job(name, text)
        return str(place.job(self.name, self.text))


SEQUENCE = Job(
    "sequence",
    """
steps:
- {id: a, run: $STEP}
- {id: b, run: $STEP}
- {id: c, run: $STEP}
""",
    {"b": ("a",), "c": ("b",)},
)

DAG = Job(
    "dag",
    """
max_parallel: 2
steps:
- {id: a, run: $STEP}
- {id: b, needs: [a], run: $STEP}
- {id: c, needs: [a], run: $STEP}
- {id: d, needs: [b, c], run: $STEP}
""",
    {"b": ("a",), "c": ("a",), "d": ("b", "c")},
    steps=4,
)

RETRIES = Job(
    "retries",
    """
steps:
- {id: a, run: $STEP, env: {TIMES: "2"}, retry: {max_attempts: 3, interval: 10ms}}
- {id: b, run: $STEP}
""",
    {"b": ("a",)},
    steps=2,
)

FANOUT = Job(
    "fanout",
    """
max_parallel: 2
steps:
- {id: list, run: 'echo ''items=["x","y","z"]'' >> "$AGENTRUN_OUTPUT"; $STEP'}
- {id: each, foreach: '${{ steps.list.outputs.items }}', run: $STEP}
- {id: last, run: $STEP}
""",
    {"each": ("list",), "last": ("each",)},
    steps=5,
)

LOOP = Job(
    "loop",
    """
steps:
- {id: loop, run: $STEP, repeat: {until: 'test "$AGENTRUN_ROUND" -ge 3', max: 5}}
- {id: last, run: $STEP}
""",
    {"last": ("loop",)},
    steps=4,
)

CHILD = Job(
    "parent",
    """
steps:
- {id: a, run: $STEP}
- {id: sub, job: inner.yaml}
- {id: c, run: $STEP}
""",
    {"c": ("a",), "inner2": ("inner1",)},
    texts={"inner": "steps:\n- {id: inner1, run: $STEP}\n- {id: inner2, run: $STEP}\n"},
    steps=4,
)

HANDLERS = Job(
    "handlers",
    """
steps:
- {id: a, run: $STEP}
- {id: b, run: $STEP 3}
- {id: c, run: $STEP}
- {id: page, when: on_failure, run: $STEP}
- {id: tidy, when: always, run: $STEP}
""",
    {"b": ("a",), "page": ("b",)},
    outcome="failed",
    steps=4,
)

POLICIES = Job(
    "policies",
    """
steps:
- {id: a, run: $STEP, on_interrupt: skip}
- {id: b, run: $STEP}
- {id: c, run: $STEP, on_interrupt: fail, continue_on_error: true}
- {id: d, run: $STEP}
""",
    {"b": ("a",), "c": ("b",), "d": ("c",)},
    policies={"a": "skip", "c": "fail"},
    steps=4,
)

# a step that is run again begins with the state that it began with: X is counted once
CARRY = Job(
    "carry",
    """
carry: shell
shell: [/bin/bash, -e]
steps:
- {id: a, run: 'exec 8>> "$TORTURE/carried-$AGENTRUN_RUN_ID"; flock 8; X=1; $STEP'}
- {id: b, run: 'X=$((X + 1)); echo "$X" >&8; $STEP'}
- {id: c, run: '[ "$X" = 2 ] || exit 9; if flock -n "$TORTURE/carried-$AGENTRUN_RUN_ID" true; then exit 8; fi; $STEP'}
""",
    {"b": ("a",), "c": ("b",)},
)

# its tick is the last New Year's: the account of it is written with the run, and no other is due meanwhile
TICK = Job(
    "tick",
    """
schedule: "0 0 1 1 *"
catch_up: latest
concurrency: queue
steps:
- {id: a, run: $STEP}
- {id: b, run: $STEP}
""",
    {"b": ("a",)},
    steps=2,
)

ALL = (SEQUENCE, DAG, RETRIES, FANOUT, LOOP, CHILD, HANDLERS, POLICIES, CARRY)
OF_ONE_RUN = (*ALL, TICK)  # where a job is run once
