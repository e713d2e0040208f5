"""`output()` and `usage()`: what the supervisor finds, and what is refused."""

from __future__ import annotations

import json

import pytest

from agentrun.step import outputs

from .rig import Step


def test_outputs_reach_the_supervisor(place: Step) -> None:
    argv = place.script("""
        with open(os.environ["AGENTRUN_OUTPUT"], "w") as file: file.write("a=file\\nb=file\\n")
        output(b=(1, 2), c="x")
        output({"c": {"d": None}, "e f": 1.5}, g="ü")
        output()
        output(retry_after=30)
        """)  # fmt: skip
    assert place.run(argv).err == ""
    given = outputs.read(str(place.output()))
    assert given.values == {"a": "file", "b": [1, 2], "c": {"d": None}, "e f": 1.5, "g": "ü"}
    assert given.retry_after == 30_000
    place.output().with_name("1.out.ret").write_text('{"g": 1}')
    assert outputs.read(str(place.output())).values["g"] == 1


def test_what_a_call_handed_over_is_handed_over_again_and_what_it_spent_is_not_spent_again(place: Step) -> None:
    argv = place.script("""
        @step
        def inner(): output(inner=1); usage(5, 6)
        @step
        def outer(): inner(); output(outer=2)
        outer()
        """)  # fmt: skip
    for _ in range(2):
        assert place.run(argv).err == ""
        assert outputs.read(str(place.output())).values == {"inner": 1, "outer": 2}
    assert not place.usage().exists()


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ('{"a": 1}\n{"b": 2', "line 2 of it cannot be used"),
        ('{"a": 1} (torn)\n{"b": 2}\n', "line 1 of it cannot be used"),
        ("[]\n", "line 1 of what output() handed over is no JSON object"),
        ('{"a": NaN}\n', "cannot be used"),
        ("\udcff\n", "cannot be used"),
        ('{"a": "' + "x" * outputs.LIMIT + '"}', "larger than 1 MiB"),
    ],
)
def test_outputs_that_are_not_whole_are_none(place: Step, text: str, wrong: str) -> None:
    place.output().with_name("0.out.set").write_text(text, errors="surrogateescape")
    with pytest.raises(outputs.OutputsError) as caught:
        outputs.read(str(place.output()))
    assert wrong in caught.value.message and len(caught.value.message) < 300


@pytest.mark.parametrize(
    ("call", "line"),
    [
        ("usage(1, 2, 'm', 0.25, tool='x')",
         {"gen_ai.usage.input_tokens": 1, "gen_ai.usage.output_tokens": 2, "gen_ai.request.model": "m", "cost": 0.25,
          "tool": "x"}),
        ("usage(output_tokens=3.0)", {"gen_ai.usage.output_tokens": 3}),
        ("usage(cost=__import__('decimal').Decimal('0.5'))",
         {"cost": 0.5}),
        ("usage({'gen_ai.usage.input_tokens': 7}, model='m')",
         {"gen_ai.usage.input_tokens": 7, "gen_ai.request.model": "m"}),
    ],
)  # fmt: skip
def test_usage_is_a_line_with_the_names_of_opentelemetry(place: Step, call: str, line: dict[str, object]) -> None:
    place.attempt = 1
    place.usage().write_text('{"cost": 1}')  # somebody else's line, without its end
    place.attempt = 0
    assert place.run(place.script(call + "\n")).err == ""
    assert [json.loads(text) for text in place.usage().read_text().splitlines()] == [{"cost": 1}, line]


@pytest.mark.parametrize(
    ("call", "wrong"),
    [
        ("usage(-1)", "ValueError: usage(): gen_ai.usage.input_tokens is 0 or more, not -1"),
        ("usage(1, 1.5)", "ValueError: usage(): gen_ai.usage.output_tokens is a whole number, not 1.5"),
        ("usage(float('nan'))", "ValueError: usage(): gen_ai.usage.input_tokens is a whole number, not nan"),
        ("usage('3')", "TypeError: usage(): gen_ai.usage.input_tokens is a number, not '3'"),
        ("usage(True)", "is a number, not True"),
        ("usage(tokens=3)", "TypeError: usage() has no 'tokens': give input_tokens and output_tokens"),
        ("usage(5, prompt_tokens=3)", "TypeError: usage() has no 'prompt_tokens': give input_tokens"),
        ("usage({'total_tokens': 3})", "usage() has no 'total_tokens': give input_tokens and output_tokens"),
        ("usage()", "TypeError: usage() is given nothing to count: give input_tokens, output_tokens or cost"),
        ("usage(model='m', tool='x')", "usage() is given nothing to count"),
        ("output(a='x' * (1 << 20))", "ValueError: what output() is given is larger than 1 MiB: write it to a file"),
        ("usage(cost=float('inf'))", "ValueError: usage(): cost is 0 or more, not inf"),
        ("usage(cost='1')", "TypeError: usage(): cost is a number, not '1'"),
        ("usage(model=3)", "TypeError: usage(): a model is named by a text, not 3"),
        ("usage(tool={1})", "TypeError: what usage() is given is not JSON: `tool` is of type set"),
        ("output({1: 2})", "TypeError: what output() is given is not JSON: it has the key 1"),
        ("output(a=[object()])", "`a[0]` is of type object"),
        ("output([1])", "TypeError: output() takes values by name, output(count=3), or one mapping"),
        ("output({'': 1})", "give every output a name"),
    ],
)
def test_what_is_refused_at_the_caller(place: Step, call: str, wrong: str) -> None:
    for env in ({}, {"AGENTRUN_OUTPUT": "", "AGENTRUN_USAGE": ""}):
        ran = place.run(place.script(call + "\n"), **env)
        assert ran.status == 1 and wrong in ran.err
    assert not place.usage().exists()


def test_many_small_outputs_are_not_large_ones(place: Step) -> None:
    argv = place.script("for n in range(30_000): output(count=n, text='x' * 50)\n")
    assert place.run(argv).err == ""
    assert place.output().with_name("1.out.set").stat().st_size > outputs.LIMIT
    assert outputs.read(str(place.output())).values == {"count": 29_999, "text": "x" * 50}
    argv = place.script("for n in range(30): output({str(n): 'x' * 50_000})\n")
    place.run(argv)
    with pytest.raises(outputs.OutputsError, match="larger than 1 MiB"):
        outputs.read(str(place.output()))
