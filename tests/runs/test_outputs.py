"""What steps give to those after them: the output file, its types, and the references that read it."""

from __future__ import annotations

import pytest

from .place import MARK, Place


def test_lines_blocks_and_json_are_outputs(place: Place) -> None:
    ran = place.run("""
steps:
- id: lines
  run: |
    echo "count=3" >> "$AGENTRUN_OUTPUT"
    echo "text=a=b  c" >> "$AGENTRUN_OUTPUT"
    echo "empty=" >> "$AGENTRUN_OUTPUT"
    echo "count=4" >> "$AGENTRUN_OUTPUT"
- id: block
  run: |
    printf 'body<<END\\nfirst\\n\\nkey=value\\nEND\\nafter=yes\\n' >> "$AGENTRUN_OUTPUT"
- id: json
  run: |
    printf '  {"n": 1, "deep": {"list": [true, null, 1.5, "Ærø"]}}' > "$AGENTRUN_OUTPUT"
- id: none
  run: 'true'
""")
    assert ran.status == 0, ran.stderr
    assert ran.outputs["lines"] == {"count": "4", "text": "a=b  c", "empty": ""}
    assert ran.outputs["block"] == {"body": "first\n\nkey=value", "after": "yes"}
    assert ran.outputs["json"] == {"n": 1, "deep": {"list": [True, None, 1.5, "Ærø"]}}
    assert not ran.outputs["none"]


def test_declared_outputs_are_of_their_types(place: Place) -> None:
    ran = place.run("""
steps:
- id: a
  outputs: {i: integer, n: number, b: boolean, s: string, l: array, o: object}
  run: |
    cat > "$AGENTRUN_OUTPUT" <<'END'
    i=42
    n=1.5
    b=true
    s=0755
    l=[1, "two"]
    o={"k": null}
    extra=as text
    END
""")
    assert ran.status == 0, ran.step("a")["error"]
    assert ran.outputs["a"] == {
        "i": 42, "n": 1.5, "b": True, "s": "0755", "l": [1, "two"], "o": {"k": None}, "extra": "as text",
    }  # fmt: skip


# what is written, the step's `outputs`, and words of the error
BAD = {
    "missing": ("echo other=1", "{count: integer}", ["count", "missing", "other"]),
    "none_at_all": ("true", "{count: integer}", ["count", "missing"]),
    "no_integer": ("echo count=many", "{count: integer}", ["count", "'many'", "integer"]),
    "json_type": ("echo '{\"list\": {}}'", "{list: array}", ["list", "object", "array"]),
    "no_line": ("echo just a sentence", "{}", ["line 1", "key=value"]),
    "no_end": ("printf 'a<<END\\nx\\n'", "{}", ["line 1", "END"]),
    "bad_json": ("echo '{\"a\": 1,}'", "{}", ["line 1", "JSON"]),
    "nan": ("echo '{\"a\": NaN}'", "{}", ["JSON"]),
    "latin_1": ("printf 'a=1\\nb=\\351t\\351\\n'", "{}", ["not UTF-8", "line 2", "0xe9"]),
    "nul": ("printf 'a=\\000\\n'", "{}", ["line 1", "NUL"]),
    "too_big": ("printf 'a=%01048600d\\n' 1", "{}", ["larger than 1 MiB", "AGENTRUN_RUN_DIR"]),
    "endless": ("head -c 20000000 /dev/zero", "{}", ["larger than 1 MiB"]),
}


def test_outputs_that_are_not_as_they_must_be_fail_the_step(place: Place) -> None:
    steps = "".join(
        f"- id: {name}\n  needs: []\n  outputs: {declared}\n  run: |\n    {write} > \"$AGENTRUN_OUTPUT\"\n"
        f"- {{id: after_{name}, needs: [{name}], run: '{MARK}'}}\n"
        for name, (write, declared, _) in BAD.items()
    )
    ran = place.run(f"steps:\n{steps}")
    assert ran.status == 1
    for name, (_, _, words) in BAD.items():
        step = ran.step(name)
        assert (step["outcome"], step["reason"], step["exit_code"]) == ("failed", "outputs", 0), name
        assert [word for word in words if word not in step["error"]] == [], f"{name}: {step['error']}"
        assert not step["outputs"], name
    assert place.marks() == []


def test_an_output_file_that_became_something_else_fails_the_step(place: Place) -> None:
    kinds = {
        "folder": 'mkdir "$AGENTRUN_OUTPUT"', "pipe": 'mkfifo "$AGENTRUN_OUTPUT"',
        "device": 'ln -s /dev/zero "$AGENTRUN_OUTPUT"',
    }  # fmt: skip
    steps = "".join(
        f"- {{id: {name}, needs: [], run: 'rm -f \"$AGENTRUN_OUTPUT\"; {make}'}}\n" for name, make in kinds.items()
    )
    ran = place.run(f"steps:\n{steps}")
    assert {step["reason"] for step in ran.steps.values()} == {"outputs"}


def test_nearly_one_mib_passes_from_step_to_step(place: Place) -> None:
    size = (1 << 20) - 100
    place.file("work.py", f"def make(): return 'é' * {size // 2}\ndef take(text): return [len(text), text[0]]\n")
    ran = place.run("""
steps:
- {id: make, python: 'work:make'}
- {id: take, python: 'work:take', with: {text: '${{ steps.make.outputs.result }}'}}
""")
    assert (ran.status, ran.outputs["take"]) == (0, {"result": [size // 2, "é"]}), ran.stderr


def test_references_reach_everything_that_they_may_name(place: Place) -> None:
    place.file("work.py", "def echo(**given): return given\n")
    ran = place.run(
        """
params: {text: {default: all}, n: {default: 3}, list: {default: [1, {a: two}]}, yes: {default: true}}
env: {BASE: '${{ params.text }}', HOST: '${{ env.FROM_OUTSIDE }}'}
steps:
- id: first
  run: printf '{"rows":[{"id":7},{"id":8}],"name":"x y","none":null}' > "$AGENTRUN_OUTPUT"
- id: fails
  continue_on_error: true
  run: exit 1
- id: echo
  python: 'work:echo'
  with:
    whole: '${{ steps.first.outputs.rows }}'
    deep: '${{ steps.first.outputs.rows.1.id }}'
    none: '${{ steps.first.outputs.none }}'
    text: 'n=${{ params.n }} l=${{ params.list }} y=${{ params.yes }}'
    kept: ['${{ params.n }}', {k: '${{ params.yes }}'}, '${{ params.list.1.a }}']
    outcomes: '${{ steps.first.outcome }} ${{ steps.fails.outcome }}'
    run: '${{ run.id }}'
    tick: '${{ run.scheduled_time }}'
    env: '${{ env.FROM_OUTSIDE }}'
- id: shell
  env:
    ROWS: '${{ steps.first.outputs.rows }}'
    NAME: '<${{ steps.first.outputs.name }}>'
    ID: '${{ steps.first.outputs.rows.0.id }}'
  run: printf '%s %s %s %s %s' "$ROWS" "$NAME" "$ID" "$BASE" "$HOST"
""",
        "-p", "text=acme", "-p", "n=5", "--scheduled-time", "2026-11-20T10:00:00+01:00",
        env={"FROM_OUTSIDE": "out $HOME side"},
    )  # fmt: skip
    assert ran.status == 0, ran.stderr
    assert ran.outputs["echo"] == {
        "whole": [{"id": 7}, {"id": 8}], "deep": 8,
        "none": None, "text": 'n=5 l=[1,{"a":"two"}] y=true', "kept": [5, {"k": True}, "two"],
        "outcomes": "succeeded failed", "run": ran.run["id"], "tick": "2026-11-20T09:00:00.000Z",
        "env": "out $HOME side",
    }  # fmt: skip
    log = place.call("logs", "job", "--step", "shell", "--raw").stdout
    assert log == '[{"id":7},{"id":8}] <x y> 7 acme out $HOME side'
    assert ran.step("shell")["inputs"]["env"]["NAME"] == "<x y>"


def test_a_value_never_becomes_program_text(place: Place) -> None:
    ran = place.run(
        "params: {who: {}}\nsteps:\n- {id: a, run: 'echo \"$WHO\"', env: {WHO: '${{ params.who }}'}}\n",
        "-p", "who=$(touch owned); `touch owned` '\" && touch owned",
    )  # fmt: skip
    assert ran.status == 0
    assert not (place.root / "owned").exists()


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("steps.first.outputs.absent", ["steps.first.outputs.absent", "no output of that name"]),
        ("steps.first.outputs.rows.5", ["rows.5"]),
        ("steps.fails.outputs.x", ["steps.fails.outputs.x", "failed"]),
        ("env.NOT_THERE", ["NOT_THERE"]),
    ],
)
def test_a_reference_to_what_is_not_there_fails_the_step_before_it_starts(
    place: Place, reference: str, words: list[str]
) -> None:
    ran = place.run(f"""
steps:
- {{id: first, run: 'printf "{{\\"rows\\":[1]}}" > "$AGENTRUN_OUTPUT"'}}
- {{id: fails, run: 'echo x=1 > "$AGENTRUN_OUTPUT"; exit 1', continue_on_error: true}}
- {{id: a, run: '{MARK}', env: {{X: '${{{{ {reference} }}}}'}}, retry: {{max_attempts: 3, interval: 0s}}}}
""")
    assert (ran.status, place.marks()) == (1, []), ran.stderr
    step = ran.step("a")
    assert (step["outcome"], step["reason"], step["attempts"]) == ("failed", "inputs", 1), "no retry mends that"
    assert [word for word in words if word not in step["error"]] == [], step["error"]


def test_a_value_that_no_environment_can_hold_fails_the_step_plainly(place: Place) -> None:
    place.file("work.py", "def big(): return 'x' * 200_000\ndef nul(): return 'a\\0b'\n")
    ran = place.run(f"""
steps:
- {{id: big, python: 'work:big', needs: []}}
- {{id: nul, python: 'work:nul', needs: []}}
- {{id: takes_big, needs: [big], run: '{MARK}', env: {{X: '${{{{ steps.big.outputs.result }}}}'}}}}
- {{id: takes_nul, needs: [nul], run: '{MARK}', env: {{X: '${{{{ steps.nul.outputs.result }}}}'}}}}
""")
    assert ran.status != 0 and place.marks() == []
    assert ran.outcomes["takes_big"] == ran.outcomes["takes_nul"] == "failed"
    assert "NUL" in ran.step("takes_nul")["error"]
    assert "too long" in ran.step("takes_big")["error"].lower()


def test_who_reads_what_a_step_wrote_comes_to_its_end(place: Place) -> None:
    """`sort` begins to write when its input has ended, and that is when the shell has."""
    text = "shell: [/bin/bash]\nsteps:\n- run: exec > >(sort -rn > \"$ARENA/sorted\"); seq 1 300000\n"
    assert place.run(text).status == 0
    assert place.read("sorted").split("\n", 1)[0] == "300000"
    assert place.read("sorted").endswith("\n2\n1\n")
