"""What a script hands over to its supervisor while it runs: outputs, and what it spent.

Outputs are lines of JSON objects in "$AGENTRUN_OUTPUT.set", read when the step has ended (`step/outputs.py`); usage
is a line in $AGENTRUN_USAGE with the names of OpenTelemetry's semantic conventions for generative AI, read while it
runs. Each line is one write; neither is synced, for they are of this attempt alone.
"""

from __future__ import annotations

import os

from .journal import append_line, culprit, text_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

INPUT, OUTPUT, MODEL = "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens", "gen_ai.request.model"
_COUNTED = (
    INPUT, OUTPUT, "gen_ai.usage.prompt_tokens", "gen_ai.usage.completion_tokens", "cost", "gen_ai.usage.cost",
)  # fmt: skip
_NEARLY = {
    "prompt_tokens": "give input_tokens",
    "completion_tokens": "give output_tokens",
    "tokens": "give input_tokens and output_tokens",
    "total_tokens": "give input_tokens and output_tokens",
    "tokens_in": "give input_tokens",
    "tokens_out": "give output_tokens",
    "price": "give cost",
}
_MOST = 1 << 20  # bytes: what all outputs of a step may take


def output(mapping: tuple[Any, ...], values: dict[str, Any]) -> None:
    """See `agentrun.durable.output`."""
    if len(mapping) > 1 or not all(hasattr(given, "keys") for given in mapping):
        raise TypeError("output() takes values by name, output(count=3), or one mapping of them")
    merged = dict(mapping[0], **values) if mapping else values
    if "" in merged:
        raise TypeError("output(): give every output a name")
    if _check(merged, "what output() is given") > _MOST:
        raise ValueError(
            "what output() is given is larger than 1 MiB: write it to a file in $AGENTRUN_RUN_DIR and give its path"
        )
    hand_over(merged)


def hand_over(values: dict[str, Any]) -> None:
    """Append outputs that are known to be JSON, and remember them with the calls that this is a part of."""
    path = os.environ.get("AGENTRUN_OUTPUT")
    if not path or not values:
        return
    from .within import call_here

    append_line(path + ".set", values)
    call = call_here()
    while call is not None:
        call.outputs.update(values)
        call = call.outer


def usage(input_tokens: Any, output_tokens: Any, model: Any, cost: Any, more: dict[str, Any]) -> None:
    """See `agentrun.durable.usage`."""
    is_named = hasattr(input_tokens, "keys")
    line = dict(input_tokens, **more) if is_named else dict(more)
    if not is_named and input_tokens is not None:
        line[INPUT] = input_tokens
    if output_tokens is not None:
        line[OUTPUT] = output_tokens
    if model is not None:
        line[MODEL] = model
    if cost is not None:
        line["cost"] = cost
    for name in (INPUT, OUTPUT):
        if name in line:
            line[name] = _count(line[name], name)
    if line.get("cost") is not None:
        line["cost"] = _amount(line["cost"])
    if not isinstance(line.get(MODEL, ""), str):
        raise TypeError(f"usage(): a model is named by a text, not {line[MODEL]!r}")
    _check(line, "what usage() is given")
    _check_names(line)
    path = os.environ.get("AGENTRUN_USAGE")
    if path:
        append_line(path, line, b"\n")


def _count(value: Any, name: str) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        if isinstance(value, float):
            raise ValueError(f"usage(): {name} is a whole number, not {value!r}")
        raise TypeError(f"usage(): {name} is a number, not {value!r}")
    count: int = value.__index__()
    if count < 0:
        raise ValueError(f"usage(): {name} is 0 or more, not {value!r}")
    return count


def _amount(value: Any) -> int | float:
    if isinstance(value, (bool, str)) or not (isinstance(value, int) or hasattr(value, "__float__")):
        raise TypeError(f"usage(): cost is a number, not {value!r}")
    amount = value if isinstance(value, int) else float(value)
    if not 0 <= amount < float("inf"):
        raise ValueError(f"usage(): cost is 0 or more, not {value!r}")
    return amount


def _check(values: dict[str, Any], what: str) -> int:
    """The bytes that they take as JSON."""
    text = ""
    try:
        text = text_of(values)
        wrong = culprit(values)
    except (TypeError, ValueError, RecursionError) as error:
        wrong = culprit(values) or str(error)
    if wrong:
        raise TypeError(f"{what} is not JSON: {wrong}")
    return len(text.encode())


def _check_names(line: dict[str, Any]) -> None:
    """Refuse what would count for nothing: the figures of a call by names that nobody looks for."""
    for name in line:
        if name in _NEARLY:
            raise TypeError(f"usage() has no {name!r}: {_NEARLY[name]}")
    if not any(line.get(name) is not None for name in _COUNTED):
        raise TypeError("usage() is given nothing to count: give input_tokens, output_tokens or cost")
