"""The database: the library that keeps it, its pages, its journals, and the lock that its writers queue for."""

from __future__ import annotations

import os

from ..errors import AgentrunError
from ..step import procs
from ..store import backups, database, inspection, redo, schema
from .finding import Finding, bad, good, several, size, some
from .site import Site

_PATIENCE = 5.0  # seconds for the write lock: as long as writers wait before they say who holds it
_READING = 3.0  # seconds for a look at all pages, and for one at all journals
_MISSED = 3  # runs that end without a backup that was due: one may be killed, or find no room
_WAL = 256 << 20  # bytes: it begins anew at 4 MiB as soon as nobody reads what is in it
_RESET_SAFE = (3, 51, 3)


def sqlite_version(site: Site) -> Finding:
    """New enough for what the tables are made of. The WAL-reset bug does no harm here, and it is said why."""
    version = inspection.library()["version"]
    if lacking := inspection.try_statements():
        return bad(f"SQLite {version} is too old: {lacking}", "use a Python with SQLite 3.37 or newer")
    if tuple(map(int, version.split("."))) < _RESET_SAFE:
        return good(
            f"SQLite {version}, which has the WAL-reset bug (repaired in 3.51.3): it takes two connections that"
            " write or checkpoint at once, and those of agentrun do so under one lock. Let no other program write there"
        )
    return good(f"SQLite {version}")


def sqlite_library(site: Site) -> Finding:
    """Built with the write-ahead log, with locks, and safe for threads."""
    built = inspection.library()
    for option in ("OMIT_WAL", "OMIT_FOREIGN_KEY", "OMIT_CHECK", "OMIT_JSON"):
        if option in built:
            return bad(f"it was built with SQLITE_{option}", "use another Python, or another SQLite library")
    threads = built.get("THREADSAFE", "1")
    if threads == "0":
        return bad("it was built without mutexes (THREADSAFE=0)", "use another Python, or another SQLite library")
    return good(f"write-ahead log, foreign keys and JSON are in it; THREADSAFE={threads}")


def database_file(site: Site) -> Finding:
    """It opens, it is ours, of a version that this program knows, and its pages hold together."""
    file = database.path(site.root)
    if os.path.exists(file) and not os.path.isfile(file):
        return bad(f"{file} is no plain file", "move it away")
    try:
        found = site.database
        if found is None:
            return _none(site, file)
        if not found.ours and not any(redo.journals(site.root)):
            return bad(f"{file} is a database of another program", "set AGENTRUN_HOME to a folder of agentrun's own")
        if not found.ours or found.version < 1:
            return bad(f"{file} is damaged: it does not say that it is agentrun's", "agentrun doctor --repair")
        if found.version > schema.VERSION:
            return bad(
                f"{file} was written by a newer agentrun (version {found.version}, this one knows {schema.VERSION})",
                "use the newer program; nothing has been changed",
            )
        wrong = found.damage(_READING)
        runs = found.counts()
    except AgentrunError as error:
        damaged = "damaged" in error.message
        return bad(error.message, "agentrun doctor --repair" if damaged else error.hint or "check its owner and mode")
    if wrong.rows:
        said = "; ".join(" ".join(str(row[0]).split()) for row in wrong.rows[:3])
        return bad(f"{file} is damaged: {said}", "agentrun doctor --repair")
    older = "" if found.version == schema.VERSION else "; the next command brings it up to date"
    pages = "" if wrong.whole else f"; only what could be read in {_READING:.0f} s was checked"
    return good(f"{several(runs, 'run')}, {size(os.path.getsize(file))}, version {found.version}{older}{pages}")


def _none(site: Site, file: str) -> Finding:
    """There is no database, or an empty file; whoever makes a run's folder has made the database before."""
    if site.folders:
        return bad(
            f"{file} is gone or empty, and there are the folders of {several(site.folders, 'run')}",
            "agentrun doctor --repair brings it back from the journals of the runs",
        )
    return good(f"there is none yet: the first run makes {file}")


def write_ahead_log(site: Site) -> Finding:
    """Not grown beyond all measure: it can begin anew only when nobody reads what is in it."""
    file = database.path(site.root) + "-wal"
    try:
        length = os.stat(file).st_size
    except FileNotFoundError:
        return good("there is none: nobody has the database open")
    if length <= _WAL:
        return good(size(length))
    readers = holders(database.path(site.root))
    who = f"who has the database open: {some(readers)}" if readers else "nobody is seen to have it open"
    return bad(
        f"{file} has grown to {size(length)}: somebody has been reading for long; {who}",
        "end what reads it; then the next command that writes makes it small again",
    )


def holders(path: str) -> list[str]:
    """The processes, but for this one, that have a file open, as `4711 (sqlite3)`."""
    wanted = os.path.realpath(path)
    found = []
    for pid in procs.every_pid():
        try:
            opened = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        except OSError:
            continue  # gone, or another user's
        if wanted in opened and pid != os.getpid():
            found.append(f"{pid} ({os.fsdecode(procs.read(f'/proc/{pid}/comm')).strip()})")
    return found


def journals(site: Site) -> Finding:
    """Each run's events are numbered 1, 2, 3, … without a gap."""
    record = site.record
    if record is None:
        return good("none yet")
    answer = record.gaps(_READING)
    if answer.rows:
        runs = [f"{run} ({count} of {last})" for run, count, last in answer.rows]
        return bad(f"events are missing in the journals of {some(runs)}", "agentrun doctor --repair")
    return good("without a gap" + ("" if answer.whole else f", as far as could be read in {_READING:.0f} s"))


def run_journals(site: Site) -> Finding:
    """The database has all that the journals in the runs' folders tell: it was not put back to an older state."""
    record = site.record
    if record is None:
        return good("none yet")
    forgotten = record.forgotten(site.root)
    if forgotten:
        runs = [f"{run} ({several(count, 'transaction')})" for run, count in forgotten]
        return bad(f"the database has forgotten what journals of runs know: {some(runs)}", "agentrun doctor --repair")
    return good("the database has what the journals in the folders of the latest runs tell")


def copies(site: Site) -> Finding:
    """Copies of the database, from which a damaged one is brought back; runs make them as they end."""
    found = backups.backups(site.root)
    if not found:
        return good("none yet: a run makes one at its end")
    path, made = found[0]
    age = max(site.now / 1000 - made, 0)
    where = backups.folder(site.root)
    said = f"{len(found)} in {where}, the latest {os.path.basename(path)}, {age / 3600:.0f} hours old"
    try:
        missed = site.record.ended_since(int((made + 2 * backups.EVERY) * 1000)) if site.record else 0
    except AgentrunError:
        missed = 0
    if missed >= _MISSED:
        return bad(
            f"{said}, and {missed} runs have ended since then without one",
            f"look whether there is room for a copy and who owns {where}; the next run tries again",
        )
    return good(said)


def write_lock(site: Site) -> Finding:
    """Nobody keeps all other writers waiting."""
    if not site.is_there:
        return good("there is none yet")
    holder = inspection.wait_for_writers(site.root, _PATIENCE)
    if holder is None:
        return good("free, or let go in time by those who write")
    return bad(
        f"{holder} has held {os.path.join(site.root, 'agentrun.lock')} for {_PATIENCE:.0f} s and more",
        "if it is stopped: kill -CONT its pid; if it hangs, end it: nothing that was recorded is lost",
    )
