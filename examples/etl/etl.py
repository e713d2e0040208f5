"""The Python steps of etl.yaml."""

import csv
import os
import sqlite3
from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path


class TooManyBadRows(ValueError):
    """More of the file is wrong than is put up with: better no report than a wrong one."""


def check(source, tolerance):
    """Sort the rows into good and bad ones, each into a file of the run; what is wrong stands beside a bad row."""
    with open(source, newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    good, bad, seen = [], [], set()
    for row in rows:
        wrong = what_is_wrong(row, seen)
        seen.add(row["order"])
        if wrong:
            print(f"order {row['order']}: {wrong}")
            bad.append({**row, "wrong": wrong})
        else:
            good.append(row)
    if len(bad) * 100 > len(rows) * float(tolerance):
        raise TooManyBadRows(f"{len(bad)} of {len(rows)} rows of {source} are wrong, and {tolerance} % is put up with")
    return {
        "good": len(good),
        "bad": len(bad),
        "file": write("good.csv", good, list(rows[0])),
        "rejects": write("bad.csv", bad, [*rows[0], "wrong"]),
    }


def what_is_wrong(row, seen):
    """Why the row cannot be loaded, or None."""
    if row["order"] in seen:
        return "this order is there already"
    try:
        date.fromisoformat(row["day"])
        if Decimal(row["price"]) < 0:
            return "a price below zero"
        if int(row["amount"]) < 1:
            return "an amount below one"
    except (ValueError, InvalidOperation):
        return "a day, an amount or a price that is none"
    return None if len(row["country"]) == 2 else "no country code"


def write(name, rows, fields):
    path = Path(os.environ["AGENTRUN_RUN_DIR"], name)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fields)
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def load(file, database):
    """All of the file or nothing of it. An order that is there already is replaced: again changes nothing."""
    Path(database).parent.mkdir(exist_ok=True)
    connection = sqlite3.connect(database)
    connection.execute(
        "create table if not exists orders ("
        '"order" text primary key, day text not null, country text not null,'
        " amount integer not null, cents integer not null)"
    )
    with open(file, newline="", encoding="utf-8") as lines, connection:
        connection.executemany(
            "insert or replace into orders values (?, ?, ?, ?, ?)",
            [
                (row["order"], row["day"], row["country"], int(row["amount"]), int(Decimal(row["price"]) * 100))
                for row in csv.DictReader(lines)
            ],
        )
    (orders,) = connection.execute("select count(*) from orders").fetchone()
    connection.close()
    return {"orders": orders}


def turnover(database, by):
    """Orders and turnover, by `country` or by `month`."""
    column = {"country": "country", "month": "substr(day, 1, 7)"}[by]
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    rows = connection.execute(
        f"select {column}, count(*), sum(amount * cents) from orders group by 1 order by 3 desc, 1"
    ).fetchall()
    connection.close()
    return {"rows": [{"name": name, "orders": orders, "cents": cents} for name, orders, cents in rows]}
