"""What a step is called: the words of whoever wrote the script, where there are any.

The first sentence of the comment above, where it is a title; else the text of an `echo`, else the first command that
does something, with what it does it to; else "setup" at the beginning, and "prepare-..." before another step. Ids are
small letters with hyphens, and unique in the job: what would be called as another is says more of itself, and has a
number only where there is no more to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, takewhile

from .deeds import Deed, deed
from .groups import Group, Kind, kind_of, talks
from .program import Program, called
from .statements import Piece
from .syntax import Node, command_name, commands, listed, literal, text, walk, words
from .titles import sentence, slug, title

_DULL = listed(
    "[ [[ test echo printf cd set shopt trap umask export readonly declare typeset local exit return : true false "
    "shift sleep date logger source . log unset pushd popd basename dirname command read exec tee break continue "
    "let eval wait usage die error info warn fail grep awk cut wc head tail ls cat sort tr"
)
_DONE = re.compile(r"\b(done|completed?|finished|success\w*|failed|error|sent|saved|created|removed|deleted)$")
_OF_SETUP = re.compile(r"(load|read|parse|check|import|get|define|set|config|configure|defaults?|options|find)\b")


def names(program: Program, groups: Sequence[Group]) -> list[str]:
    """An id for each."""
    wanted = [list(dict.fromkeys(_wanted(program, group, groups))) for group in groups]
    found: list[str] = []
    for number, candidates in enumerate(wanted):
        if not candidates:
            following = [wanted[at][0] for at in range(number + 1, len(wanted))
                         if wanted[at] and groups[at].kind != Kind.PREPARES]  # fmt: skip
            candidates += [slug(f"prepare {following[0]}")] if following else ["finish" if number else "setup"]
        found.append(_free(candidates, found))
    return found


def _free(candidates: Sequence[str], taken: Sequence[str]) -> str:
    for name in candidates:
        if name not in taken:
            return name
    return next(name for number in range(2, len(taken) + 3) if (name := f"{candidates[0]}-{number}") not in taken)


def _wanted(program: Program, group: Group, groups: Sequence[Group]) -> Iterator[str]:
    """Best first. None of them is empty."""
    if _functions(program, group):
        said = _of_functions(program, group)
    elif group.kind == Kind.PREPARES:
        said = _of_preparation(program, group, groups)
    else:
        said = _of_deed(program, group)
    yield from filter(None, said)


# -- preparation


def _functions(program: Program, group: Group) -> list[str]:
    """The names of the functions that it defines, where it does nothing else."""
    nodes = [node for piece in group.pieces for node in piece.nodes if node.type != ";"]
    if not all(map(program.defines, nodes)):
        return []
    return [text(name) for node in nodes if (name := node.child_by_field_name("name")) is not None]


def _of_functions(program: Program, group: Group) -> Iterator[str]:
    found = _functions(program, group)
    if len(found) > 1:
        yield "functions"
        yield "more-functions"
    yield slug(f"define {found[0]}")
    yield slug(f"functions {found[0]}")


def _of_preparation(program: Program, group: Group, groups: Sequence[Group]) -> Iterator[str]:
    before = groups[: groups.index(group)]
    above = [comment for piece in group.pieces if (comment := comment_above(program, piece))]
    heading = title(sentence(above[0])) if above and comment_above(program, group.pieces[0]) else ""
    first = all(one.kind == Kind.PREPARES for one in before)
    if not first or (len(above) == 1 and _OF_SETUP.match(heading)):
        yield heading
    if not before or (first and _functions(program, before[0])):
        yield "setup"
    if _parses(program, group):
        yield "parse-arguments"
    if not first or before:
        yield heading
    if _asks_arguments(group) and _ends_script(program, group):
        yield "check-arguments"
    asked = _condition(group)
    if asked and (_ends_script(program, group) or group is groups[-1]):
        yield slug(f"check {asked}")
    if group is groups[-1]:
        yield from (title(sentence([said])) for said in _echoed(program, group.pieces)[::-1])


def _parses(program: Program, group: Group) -> bool:
    """Whether it reads the script's options."""
    loops = [node for piece in group.pieces for node in piece.nodes if node.type == "while_statement"]
    return any(re.match(r"while\s+(getopts\s|(\[|test|\(\().*(\$#|\$\{?1))", text(node)) for node in loops)


def _asks_arguments(group: Group) -> bool:
    asks = (node for piece in group.pieces for node in piece.nodes if node.type in ("if_statement", "list"))
    return any(re.match(r"(if\s+)?(\[\[?|test|\(\()[^;\n]*\$(#|\{?[1-9@*])", text(node)) for node in asks)


def _ends_script(program: Program, group: Group) -> bool:
    done = [one for piece in group.pieces for node in piece.nodes for one in program.runs(node)]
    return any(command_name(one) == "exit" or command_name(one) in program.enders for one in done)


def _condition(group: Group) -> str:
    """What the last check of the group looks at: the first variable of its condition."""
    found = ""
    for node in (node for piece in group.pieces for node in piece.nodes):
        if node.type in ("if_statement", "list"):
            named = (here for here in walk(node.children[0 if node.type == "list" else 1])
                     if here.type == "variable_name")  # fmt: skip
            found = next((text(here).lower() for here in named if len(text(here)) > 2), found)
    return found


# -- deeds


def _of_deed(program: Program, group: Group) -> Iterator[str]:
    deeds = [piece for piece in group.pieces if kind_of(program, piece) == group.kind]
    above = group.pieces[: group.pieces.index(deeds[0]) + 1][::-1]  # the nearest comment first
    titles = [title(sentence(comment_above(program, piece))) for piece in above]
    titles.append(_inner(program, deeds[0], group.kind))
    titles.append(_assigned(deeds[0]))
    titles += [title(sentence([said])) for said in _echoed(program, group.pieces, deeds[0])]
    plain = [found for piece in deeds for found in _deeds(program, piece, group.kind)]
    other = [found for piece in group.pieces for found in _deeds(program, piece, Kind.PREPARES)]
    done = [slug(one.said) for one in chain(plain, other)]
    yield from titles
    if done:
        yield done[0]
    first = next(filter(None, [*titles, *done]), "")
    if first:
        for one in (_condition(group), *(found.object for found in plain[:1])):
            yield slug(f"{first} {one}") if one and slug(one) and slug(one) not in first else ""
        yield from (slug(found.more) for found in plain[:1] if " " in found.more)
        yield from done[1:3]
    asked = _condition(group)
    yield slug(f"check {asked}") if asked else ""


def _inner(program: Program, piece: Piece, kind: Kind) -> str:
    """What the comment says right above the first command of this kind within an `if` or a loop."""
    for node in piece.nodes:
        for command in commands(node, without=("function_definition",)) if node.named_children else ():
            row = command.start_point.row
            if command.type == "command" and kind_of(program, piece._replace(nodes=(command,))) == kind:
                above = program.lines[row - 1] if row > node.start_point.row else ""
                return title(sentence([above])) if above.lstrip().startswith("#") else ""
    return ""


def _assigned(piece: Piece) -> str:
    for node in piece.nodes:
        if node.type == "variable_assignment":
            return slug(f"get {text(node.children[0])}")
    return ""


def _deeds(program: Program, piece: Piece, kind: Kind) -> Iterator[Deed]:
    """What its commands do, those first that are of this kind."""
    found: list[tuple[bool, Deed]] = []
    for node in piece.nodes:
        if node.type == "function_definition":
            continue
        for command in commands(node, without=("function_definition",)):
            if command.type != "command" or (called(command)[0] in _DULL and not _is_written(command)):
                continue
            of_kind = kind_of(program, piece._replace(nodes=(command,)))
            if called(command)[0] in program.functions and of_kind == Kind.PREPARES and kind != Kind.PREPARES:
                continue
            one = deed(command)
            if one is not None and of_kind == Kind.DOES and _is_asked(node, command):
                one = one._replace(verb=f"check {one.verb}")
            if one is not None:
                found.append((of_kind == kind, one))
    yield from (one for first, one in found if first)
    yield from (one for first, one in found if not first)


def _is_asked(node: Node, command: Node) -> bool:
    """Whether it stands in the condition of an `if`, in a `$(...)`."""
    if node.type != "if_statement" or len(node.children) < 2:
        return False
    condition = node.children[1]
    inside = condition.start_byte <= command.start_byte < condition.end_byte
    return inside and condition.type in ("test_command", "list", "negated_command")


def _is_written(command: Node) -> bool:
    parent = command.parent
    if parent is None or parent.type != "redirected_statement" or called(command)[0] in ("[", "[[", "exec", ".", "cd"):
        return False
    return any(re.match(r"\d?>>?\s*[^&\s]", text(one)) and "/dev/" not in text(one)
               for one in parent.children_by_field_name("redirect"))  # fmt: skip


# -- what is said


def comment_above(program: Program, piece: Piece) -> list[str]:
    """The lines of the comment that touches its statement (or the last one, with empty lines between)."""
    start = piece.nodes[0].start_point.row if piece.nodes else piece.first - 1
    above = program.lines[piece.first - 1 : start]
    while above and not above[-1].strip():
        above.pop()
    block: list[str] = []
    for line in reversed(above):
        if not line.strip():
            break
        block.insert(0, line)
    return block


def _echoed(program: Program, pieces: Sequence[Piece], deed_of: Piece | None = None) -> list[str]:
    """What `echo` says above the deed, the nearest first; not what says that all is done."""
    said: list[str] = []
    for piece in takewhile(lambda one: one is not deed_of, pieces):
        for node in piece.nodes:
            command = node.children[0] if node.type == "redirected_statement" else node
            if command.type == "command" and talks(program, called(command)[0]):
                plain = _plain(words(command)[1:])
                said += [plain] if plain and not _DONE.search(plain.lower()) else []
    return said[::-1]


def _plain(given: Iterable[Node]) -> str:
    """What of an echo's words is text; `$` for what is not known."""
    parts = []
    for word in given:
        if text(word).startswith("-"):
            continue
        known = literal(word)
        if known is None:
            inner = [text(one) if one.type == "string_content" else " $X " for one in word.named_children]
            known = "".join(inner) if word.type == "string" else " $X "
        parts.append(known)
    said = re.sub(r"\\[a-z0-9\[;]+m?|\[\d\d?(;\d+)*m|\[(INFO|info|\+|\*|LOG)\]", " ", " ".join(parts))
    if re.search(r"\bv\d+\.\d", said):
        return ""  # a banner
    return re.sub(r"^[\s\W]*(\$X[\s\W]*)+", "", said[:400]).strip()
