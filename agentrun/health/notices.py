"""Who is told, and whether that works: config.yaml, and the notices that were given up or that nobody delivers."""

from __future__ import annotations

from ..errors import JobFileError
from ..spec import config
from ..spec.configpath import config_path
from ..store.notices import NoticeQuestions
from .finding import Finding, bad, good, several, some
from .site import Site

_RECENT = 7 * 86_400_000  # ms that a failed notice is worth a word
_LATE = 900_000           # ms after which what is due is overdue: crontabs resume every few minutes


def config_file(site: Site) -> Finding:
    """config.yaml is right: while it is not, none of it counts."""
    path = config_path()
    if path is None:
        return good("there is no config.yaml: nothing is said for all jobs")
    try:
        config.load(path)
    except JobFileError as error:
        more = f", and {several(len(error.problems) - 1, 'problem')} more" if len(error.problems) > 1 else ""
        first = error.problems[0]
        return bad(
            f"{first.path}:{first.line}:{first.column}: {first.message}{more}",
            f"{first.hint or 'see agentrun.yaml(5)'}; until it is right none of it counts",
        )
    return good(path)


def notices(site: Site) -> Finding:
    """What was to be told has been told."""
    record = site.record
    if record is None or "notices" not in record.tables():
        return good("nothing was to be told yet")
    questions = NoticeQuestions(record.connection)
    failed = questions.failed(site.now - _RECENT)
    if failed:
        jobs = sorted({notice.job for notice in failed})
        last = failed[-1]
        return bad(
            f"{several(len(failed), 'notice')} of {some(jobs)} could not be delivered; the last: {last.error}",
            f"agentrun notify {last.job} tries it again; agentrun notify {last.job} --list shows what failed",
        )
    late = [one for one in (*questions.raised(), *questions.queued()) if max(one.due or 0, one.at) < site.now - _LATE]
    if late:
        return bad(
            f"nobody delivers {several(len(late), 'notice')} of {some(sorted({one.job for one in late}))}",
            "agentrun resume; a crontab line with it, every minute, does that by itself",
        )
    return good("what was to be told has been told, or is tried again")
