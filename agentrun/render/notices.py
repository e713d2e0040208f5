"""Notices as people and programs see them: what was told to whom, and what came of it.

Of a URL only the host is shown: its path may be a secret. Targets that look the same so are numbered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..instants import rfc3339
from ..store.notices import TRIES, Notice
from .tables import Column, Row, table
from .terminal import Look, printable
from .times import rfc3339_or_none, short

if TYPE_CHECKING:
    from ..model import JSON, Target

Address = tuple[str, str | tuple[str, ...]]  # kind and address
_COLUMNS = (Column("WHEN"), Column("EVENT"), Column("TO", cut=True), Column("BECAME"))
_STYLES = {"sent": ("green",), "failed": ("bold", "red"), "folded": ("dim",)}


def target_names(targets: Iterable[Target]) -> dict[Address, str]:
    """What each is called; of two that look the same the second is `webhook example.org (2)`, in the order given.

    A target is known by its kind and address.
    """
    alike: dict[str, list[Address]] = {}
    for target in targets:
        known = alike.setdefault(target_text(target), [])
        if _address(target) not in known:
            known.append(_address(target))
    return {
        one: f"{text} ({number})" if len(known) > 1 else text
        for text, known in alike.items()
        for number, one in enumerate(known, 1)
    }


def _address(target: Target) -> Address:
    return target.kind, target.address


def target_text(target: Target, names: Mapping[Address, str] | None = None) -> str:
    """`mail ops@example.org`, `webhook example.org`, `command ./page.sh`; else what it has among `names`."""
    if names is not None and _address(target) in names:
        return names[_address(target)]
    address = target.address
    if isinstance(address, tuple):
        return printable(f"{target.kind} {address[0]}")
    if target.kind == "apprise":
        return f"apprise {address.partition(':')[0]}://"
    return printable(f"{target.kind} {address if target.kind == 'mail' else urlsplit(address).netloc}")


def notice_lines(
    rows: Sequence[tuple[Notice, Target | None]], names: Mapping[Address, str], look: Look, now: int
) -> list[str]:
    """A table of notices; why one was not sent stands as a note."""
    lines: list[Row | str] = []
    for notice, target in rows:
        cells = (short(notice.at, now), notice.event, target_text(target, names) if target else "-", _became(notice))
        styles = {3: _STYLES[notice.state]} if notice.state in _STYLES else {}
        lines.append(Row(cells, styles, printable(notice.error or "")))
    return table(_COLUMNS, lines, look)


def _became(notice: Notice) -> str:
    if notice.state == "queued" and notice.tries:
        return f"try {notice.tries + 1} of {TRIES} is next"
    return "waiting" if notice.state == "raised" else notice.state


def notice_shape(notice: Notice, target: Target | None, names: Mapping[Address, str]) -> dict[str, JSON]:
    """One notice of the record; `notice` is what the target is sent."""
    address: Any = None if target is None else target_text(target, names).partition(" ")[2]
    return {
        "schema": "agentrun.notice-record/1",
        "id": notice.id,
        "event": notice.event,
        "job": notice.job,
        "run": notice.run_id,
        "state": notice.state,
        "at": rfc3339(notice.at),
        "kind": target.kind if target else None,
        "to": address,
        "tries": notice.tries,
        "due": rfc3339_or_none(notice.due) if notice.tries else None,
        "error": notice.error,
        "done_at": rfc3339_or_none(notice.done_at),
        "notice": notice.said["notice"] if target else None,
    }
