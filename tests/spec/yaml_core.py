"""A YAML text as an editor sees it: plain scalars resolved by the core schema of YAML 1.2 (10.3.2), for JSON Schema.

Written from the specification, with PyYAML's composer and nothing of ours, so that it can contradict the decoder.
"""

from __future__ import annotations

import re
from typing import Any

import yaml


def load(text: str) -> Any:
    return _value(yaml.compose(text, yaml.SafeLoader))


def _value(node: yaml.Node | None) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return [_value(item) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        # JSON has only texts for keys, and the editors' language servers take the key's text too
        return {key.value if isinstance(key, yaml.ScalarNode) else str(key): _value(part) for key, part in node.value}
    assert isinstance(node, yaml.ScalarNode)
    return node.value if node.style else _plain(node.value)


def _plain(text: str) -> Any:
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE", "false", "False", "FALSE"):
        return text.lower() == "true"
    if re.fullmatch("[-+]?[0-9]+", text):
        return int(text)
    if re.fullmatch("0o[0-7]+", text):
        return int(text[2:], 8)
    if re.fullmatch("0x[0-9a-fA-F]+", text):
        return int(text[2:], 16)
    if re.fullmatch(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", text):
        return float(text)
    return text
