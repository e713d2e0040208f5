"""Plain tables: columns lined up by blanks, a heading, a note at the end of each row.

On a terminal that is too narrow, columns go in the order of their `drop`, the highest first; then one that may be
cut is cut. A note that does not fit beside its row goes below it. Through a pipe nothing is dropped, cut or
wrapped, and each row is one line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .terminal import Look, columns_of, fit

_GAP = "  "
_CUT_TO = 8  # columns that are left of one that is cut
_NOTE_LINES = 3  # of a note below its row


@dataclass(frozen=True, slots=True)
class Column:
    """`drop`: 0 stays always; of the others the highest goes first. `cut`: its texts may lose their ends."""

    title: str
    right: bool = False
    drop: int = 0
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One text for each column, the styles that some of them have, and a note."""

    cells: Sequence[str]
    styles: Mapping[int, tuple[str, ...]]
    note: str = ""


def table(columns: Sequence[Column], rows: Sequence[Row | str], look: Look, *, heading: bool = True) -> list[str]:
    """The lines of the table. A text among the rows is a line of its own, across all columns."""
    cells_of = [row.cells for row in rows if isinstance(row, Row)]
    widths = [
        max([columns_of(column.title) if heading else 0, *(columns_of(cells[n]) for cells in cells_of)])
        for n, column in enumerate(columns)
    ]
    kept = _fitting(columns, widths, look)
    lines = []
    if heading:
        titles = [fit(column.title, widths[n]) for n, column in enumerate(columns)]
        lines.append(look.paint(_line(titles, columns, kept, widths).rstrip(), "dim"))
    for row in rows:
        if isinstance(row, str):
            lines.append(fit(row, look.width, look.dots))
            continue
        cells = [fit(cell, width, look.dots) for cell, width in zip(row.cells, widths, strict=True)]
        painted = {n: look.paint(cells[n], *styles) for n, styles in row.styles.items()}
        line = _line(cells, columns, kept, widths, painted)
        lines += _with_note(line, _total(widths, kept), row.note, look)
    return lines


def _fitting(columns: Sequence[Column], widths: list[int], look: Look) -> list[int]:
    """The columns that are kept; their widths are made to fit."""
    kept = list(range(len(columns)))
    if look.width is None:
        return kept
    while (over := _total(widths, kept) - look.width) > 0 and (loose := [n for n in kept if columns[n].drop]):
        kept.remove(max(loose, key=lambda n: columns[n].drop))
    for n in kept:
        if over > 0 and columns[n].cut:
            cut = min(over, max(widths[n] - _CUT_TO, 0))
            widths[n] -= cut
            over -= cut
    return kept


def _with_note(line: str, width: int, note: str, look: Look) -> list[str]:
    if not note:
        return [line.rstrip()]
    if look.width is None or width + len(_GAP) + columns_of(note) <= look.width:
        return [line + _GAP + note]
    import textwrap  # notes are short, and most terminals wide enough

    below = textwrap.wrap(note, look.width - 4, max_lines=_NOTE_LINES, placeholder=look.dots, break_on_hyphens=False)
    return [line.rstrip(), *(f"    {part}" for part in below)]


def _total(widths: Sequence[int], kept: Sequence[int]) -> int:
    return sum(widths[n] for n in kept) + len(_GAP) * (len(kept) - 1)


def _line(
    cells: Sequence[str],
    columns: Sequence[Column],
    kept: Sequence[int],
    widths: Sequence[int],
    painted: Mapping[int, str] | None = None,
) -> str:
    parts = []
    for n in kept:
        blanks = " " * (widths[n] - columns_of(cells[n]))
        text = painted.get(n, cells[n]) if painted else cells[n]
        parts.append(blanks + text if columns[n].right else text + blanks)
    return _GAP.join(parts)
