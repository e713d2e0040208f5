"""Both parsers of PyYAML lead to the same nodes, so a file means the same where libyaml is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from agentrun.errors import JobFileError
from agentrun.spec.document import FASTEST, ListNode, MapNode, Node, read
from agentrun.spec.report import Report

HERE = Path(__file__).parent
FILES = [path for folder in ("good", "bad/shape", "bad/meaning") for path in sorted((HERE / folder).glob("*.yaml"))]


def plain(node: Node) -> Any:
    place = (node.mark.line, node.mark.column, node.mark.index)
    if isinstance(node, ListNode):
        return place, [plain(item) for item in node.items]
    if isinstance(node, MapNode):
        return place, [(plain(key), plain(value)) for key, value in node.pairs]
    return place, node.text, node.style


@pytest.mark.skipif(FASTEST is yaml.Loader, reason="PyYAML was built without libyaml")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_both_parsers_agree(path: Path) -> None:
    text = path.read_text(encoding="utf-8-sig")
    assert plain(read(Report("x", text), yaml.Loader)) == plain(read(Report("x", text)))


@pytest.mark.parametrize("parser", [FASTEST, yaml.Loader], ids=["fastest", "python"])
@pytest.mark.parametrize("text", ["[" * 10_000, "- " * 10_000, "{a: " * 10_000, "? " * 10_000])
def test_no_depth_breaks_the_stack(text: str, parser: Any) -> None:
    with pytest.raises(JobFileError, match="nested more than 32 levels deep"):
        read(Report("x", text), parser)


def test_depth_counts_aliases_where_they_stand() -> None:
    text = "- &a " + "[" * 20 + "]" * 20 + "\n- " + "[" * 10 + "*a" + "]" * 10
    read(Report("x", text))
    deeper = text + "\n- " + "[" * 12 + "*a" + "]" * 12
    with pytest.raises(JobFileError, match="3:15: nested more than 32 levels deep, with all aliases expanded"):
        read(Report("x", deeper))
