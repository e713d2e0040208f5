"""The Python steps of backup.yaml."""

import gzip
import os
import sqlite3
from pathlib import Path


def make_sample(script, database):
    """A shop's database, to have something to save."""
    Path(database).parent.mkdir(exist_ok=True)
    part = Path(database + ".part")
    part.unlink(missing_ok=True)
    connection = sqlite3.connect(part)
    connection.executescript(Path(script).read_text(encoding="utf-8"))
    connection.close()
    part.replace(database)


def dump(database):
    """The whole database as SQL text, as it was at one moment: others may go on writing meanwhile."""
    if not Path(database).is_file():
        raise FileNotFoundError(f"there is no database {database}")  # not a lock that another attempt could wait out
    file = Path(os.environ["AGENTRUN_RUN_DIR"], os.environ["DUMP"])
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=5)
    connection.isolation_level = None
    connection.execute("begin")
    rows = count(connection)
    with open(file, "w", encoding="utf-8") as out:
        out.writelines(line + "\n" for line in connection.iterdump())
        out.flush()
        os.fsync(out.fileno())
    connection.close()
    print(f"{sum(rows.values())} rows of {len(rows)} tables, {file.stat().st_size} bytes")
    return {"rows": rows, "file": str(file)}


def verify(file, rows):
    """Restore the backup into memory: it must be sound, and have as many rows in every table as were dumped."""
    connection = sqlite3.connect(":memory:")
    with gzip.open(file, "rt", encoding="utf-8") as script:
        connection.executescript(script.read())
    (answer,) = connection.execute("pragma integrity_check").fetchone()
    if answer != "ok":
        raise ValueError(f"{file} restores to a damaged database: {answer}")
    restored = count(connection)
    if restored != rows:
        raise ValueError(f"{file} restores to {restored}, and {rows} was dumped")
    print(f"restored: {restored}")


def count(connection):
    """The number of rows of every table."""
    tables = connection.execute("select name from sqlite_master where type = 'table' and name not like 'sqlite_%'")
    return {
        name: connection.execute('select count(*) from "{}"'.format(name.replace('"', '""'))).fetchone()[0]
        for (name,) in tables.fetchall()
    }
