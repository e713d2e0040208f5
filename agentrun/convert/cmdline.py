"""The command line of an entry of a crontab, as a row of parts with what stands between them.

    cd /srv && ./a.sh >>log 2>&1 || ./b.sh; echo done
    part    && part              || part  ; part

`&&` and `||` bind alike, and `;` binds less, so a row says all that a tree would. A part is a command, a pipe or a
compound command with its redirections. What has a here-document or a line break in it, or what the parser does not
understand, is no row: `row` gives None, and the text stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal, NamedTuple

from .syntax import Node, broken, fields, literal, parse, text, walk, words

Separator = Literal["&&", "||", ";", "&", ""]
_IN_HOME: Final = re.compile(r"(?:~|\$HOME|\$\{HOME\})(/[\w./+@%:,=-]*)|\"(?:\$HOME|\$\{HOME\})(/[\w./+@%:,= -]*)\"")
_SEPARATORS: Final[Mapping[str, Separator]] = {";": ";", "&": "&", "&&": "&&", "||": "||"}


class Part(NamedTuple):
    """One part. `core`: the command without the redirections; None where there are only redirections."""

    text: str
    core: Node | None
    redirections: tuple[Node, ...]
    separator: Separator  # behind it
    start: int = 0        # where it begins in the line, in bytes

    @property
    def words(self) -> list[Node]:
        """Of a simple command; none of any other."""
        return words(self.core) if self.core is not None and self.core.type == "command" else []

    @property
    def name(self) -> str:
        """What a simple command calls, without its folder; "" for all else."""
        found = self.words
        return (literal(found[0]) or "").rsplit("/", 1)[-1] if found else ""

    @property
    def arguments(self) -> list[str | None]:
        """None for what is not known before it runs."""
        return [literal(word) for word in self.words[1:]]

    def without(self, first: int) -> str | None:
        """The text less the words before that one (an assignment in front stays); None if that cannot be done."""
        found = self.words
        if len(found) <= first or any(one.start_byte < found[first].start_byte for one in self.redirections):
            return None
        source = self.text.encode()
        kept = source[: found[0].start_byte - self.start] + source[found[first].start_byte - self.start :]
        return kept.decode()

    def less(self, gone: Sequence[Node]) -> str:
        """The text without some of its redirections."""
        source = self.text.encode()
        for node in sorted(gone, key=lambda one: -one.start_byte):
            before, behind = source[: node.start_byte - self.start], source[node.end_byte - self.start :]
            source = before.rstrip() + (b" " + behind.lstrip() if behind.strip() else b"")
        return source.decode().strip()


class Row(NamedTuple):
    parts: tuple[Part, ...]
    comment: str = ""  # behind the command, without its #

    def rest(self, first: int) -> str:
        """The text from that part on."""
        return written(self.parts[first:])

    @property
    def chain(self) -> bool:
        """Whether `&&` alone stands between the parts."""
        return all(part.separator == "&&" for part in self.parts[:-1]) and self.parts[-1].separator in ("", ";")


def foreseen(word: Node, home: str) -> str | None:
    """What a word will say when it runs; None where that is not known before. `home`: "" where it is not known."""
    if fields(word):
        return literal(word)
    found = _IN_HOME.fullmatch(text(word)) if home else None
    return home + (found[1] or found[2]) if found else None


def written(parts: Sequence[Part]) -> str:
    """Parts as text again. The `;` at the end is left out, a `&` is not."""
    pieces = []
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        pieces.append(part.text)
        if part.separator == ";" and not last:
            pieces.append("; ")
        elif part.separator and not (last and part.separator == ";"):
            pieces.append(f" {part.separator} " if not last else f" {part.separator}")
    return "".join(pieces)


def row(source: str) -> Row | None:
    """A command line as a row; None if it is not understood."""
    if "\n" in source.strip() or not source.strip():
        return None
    root = parse(source.strip())
    if broken(root) or any(node.type in ("heredoc_redirect", "function_definition") for node in walk(root)):
        return None
    data = source.strip().encode()
    found: list[Part] = []
    comment = ""
    for node in root.children:
        if node.type == "comment":
            comment = text(node).lstrip("#").strip()
        elif node.type in _SEPARATORS:
            if not found or found[-1].separator:
                return None
            found[-1] = found[-1]._replace(separator=_SEPARATORS[node.type])
        elif not node.is_named:
            return None
        else:
            found += _parts(node, (), data)
    if not found or any(not part.separator for part in found[:-1]):
        return None
    return Row(tuple(found), comment)


def _parts(node: Node, outer: tuple[Node, ...], data: bytes) -> Iterator[Part]:
    """`outer`: redirections that hang from a list around it: they are of its last command."""
    if node.type == "list" and len(node.children) == 3:
        left, between, right = node.children
        *others, last = _parts(left, (), data)
        yield from others
        yield last._replace(separator=_SEPARATORS[between.type])
        yield from _parts(right, outer, data)
        return
    own: tuple[Node, ...] = ()
    core: Node | None = node
    if node.type == "redirected_statement":
        body = node.child_by_field_name("body")
        own = tuple(node.children_by_field_name("redirect"))
        if body is not None and body.type == "list":
            yield from _parts(body, (*own, *outer), data)
            return
        core = body
    elif node.type == "command":  # one in front of its words hangs from the command itself
        own = tuple(node.children_by_field_name("redirect"))
    redirections = tuple(sorted((*own, *outer), key=lambda one: one.start_byte))
    start, end = node.start_byte, max(node.end_byte, *(one.end_byte for one in redirections), 0)
    yield Part(data[start:end].decode(), core, redirections, "", start)


def value(word: Node, variables: Mapping[str, str]) -> str | None:
    """What one word becomes, with the variables that are known; None where it cannot be known, or may be more words.

    `~` at its beginning stays, if the shell would take it for a home; $HOME becomes `~` unless it is known.
    """
    quoted = word.type in ("string", "raw_string")
    found = _value(word, {"HOME": "~", **variables})
    if found is None or (not quoted and re.search(r"[\s*?\[{]", found)):
        return None
    if found.startswith("~") and text(word)[:1] not in "~$" and not re.match(r'"\$\{?HOME\b', text(word)):
        return None
    return found


def _value(word: Node, variables: Mapping[str, str]) -> str | None:
    known = literal(word)
    if known is not None:
        return known
    if word.type == "string_content":
        return text(word).replace("\\", "") if "\\" not in text(word) else None
    if word.type in ("simple_expansion", "expansion"):
        named = re.fullmatch(r"\$\{?([A-Za-z_]\w*)\}?", text(word))
        return variables.get(named[1]) if named else None
    if word.type in ("string", "concatenation"):
        inner = [child for child in word.children if child.type != '"']
        gaps = "".join(text(child) for child in inner)
        if gaps != text(word).strip('"') and word.type == "string":
            return None  # blanks at the edges of a string are no nodes
        parts = [_value(child, variables) for child in inner]
        return None if None in parts else "".join(part for part in parts if part is not None)
    return None


def sequences(source: str) -> bool:
    """Whether `sh -e` might end where `sh` goes on: it has commands one after the other, or is not understood.

    What stands alone, in a pipe, or beside `&&` and `||`, ends both alike.
    """
    root = parse(source)
    if broken(root):
        return True
    holders = ("program", "subshell", "compound_statement", "command_substitution", "process_substitution")
    for node in walk(root):
        if node.type in ("if_statement", "while_statement", "for_statement", "c_style_for_statement", "case_statement",
                         "function_definition", "heredoc_redirect"):  # fmt: skip
            return True
        if node.type in holders and sum(one.is_named and one.type != "comment" for one in node.children) > 1:
            return True
        if node.type == "&":
            return True
    return False


__all__ = ["Part", "Row", "row", "sequences", "value", "written"]
