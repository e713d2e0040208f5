"""The steps of quotes.yaml. Each takes JSON and returns JSON; only two of them touch the disk.

Both may be killed at any moment and started again: a file appears by rename, whole or not at all, and under a name
that is the same in every attempt.
"""

import csv
import os
import sqlite3
import time
from decimal import ROUND_HALF_UP, Decimal
from email.message import EmailMessage
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote_plus


class RateTable(HTMLParser):
    """The rows of the table with the id `rates`, each as the list of its cells' texts."""

    def __init__(self):
        super().__init__()
        self.rows = []
        self._inside = self._cell = False

    def handle_starttag(self, tag, attrs):
        if tag == "table":
            self._inside = ("id", "rates") in attrs
        elif self._inside and tag == "tr":
            self.rows.append([])
        elif self._inside and tag == "td":
            self._cell = True
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        if tag == "table":
            self._inside = False
        elif tag == "td":
            self._cell = False

    def handle_data(self, data):
        if self._cell:
            self.rows[-1][-1] += data.strip()


def scrape_rates(page):
    """What each carrier asks on each lane, from the table of the page. Prices in cents."""
    table = RateTable()
    table.feed(Path(page).read_text(encoding="utf-8"))
    rates = [
        {"carrier": carrier, "lane": lane, "base": cents(base), "per_kg": cents(per_kg), "days": int(days)}
        for carrier, lane, base, per_kg, days in filter(None, table.rows)
    ]
    if not rates:
        raise ValueError(f"{page} has no table of rates any more: has the page changed?")
    print(f"{len(rates)} rates of {len({rate['carrier'] for rate in rates})} carriers")
    return {"rates": rates, "count": len(rates)}


def make_database(script, database):
    """Stands for the planners' database: made once, from its script."""
    if Path(database).exists():
        print(f"{database} is there")
        return
    Path(database).parent.mkdir(exist_ok=True)
    part = Path(database + ".part")
    part.unlink(missing_ok=True)  # what a killed attempt left, half made
    connection = sqlite3.connect(part)
    connection.executescript(Path(script).read_text(encoding="utf-8"))
    connection.close()
    part.replace(database)
    print(f"made {database}")


def read_capacity(database):
    """What each carrier has free on each lane, in kg."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    rows = connection.execute("select carrier, lane, free_kg from capacity order by carrier, lane").fetchall()
    connection.close()
    return {"free": [{"carrier": carrier, "lane": lane, "kg": kg} for carrier, lane, kg in rows]}


def read_requests(file, customer):
    """The open requests: of all customers or of one."""
    with open(file, newline="", encoding="utf-8") as lines:
        requests = [row for row in csv.DictReader(lines) if customer in ("all", row["customer"])]
    if not requests:
        raise ValueError(f"{file} has no request of {customer!r}")
    if len({row["customer"] for row in requests}) < len(requests):
        raise ValueError(f"{file} has two requests of one customer, who is to get one mail")
    return {"requests": requests}


def price(requests, rates, free, margin):
    """The cheapest carrier for each request that is quick enough and has room; None where there is none."""
    room = {(entry["carrier"], entry["lane"]): entry["kg"] for entry in free}
    quotes = []
    for request in requests:
        kg = int(request["kg"])
        fits = [
            rate
            for rate in rates
            if rate["lane"] == request["lane"]
            and rate["days"] <= int(request["max_days"])
            and room.get((rate["carrier"], rate["lane"]), 0) >= kg
        ]
        best = min(fits, key=lambda rate: (rate["base"] + rate["per_kg"] * kg, rate["days"]), default=None)
        if best:
            room[best["carrier"], best["lane"]] -= kg
        quotes.append({**request, "offer": best and offer(best, kg, margin)})
    print(*(summary(quote) for quote in quotes), sep="\n")
    return {"quotes": quotes, "offers": sum(1 for quote in quotes if quote["offer"])}


def offer(rate, kg, margin):
    cost = Decimal(rate["base"] + rate["per_kg"] * kg)
    total = (cost * (100 + Decimal(str(margin))) / 100).quantize(Decimal(1), ROUND_HALF_UP)
    return {"carrier": rate["carrier"], "days": rate["days"], "cents": int(total)}


def write_mails(quotes, maildir, pause=0):
    """One mail for each quote, in the maildir's `new`. Those that an earlier attempt wrote are left as they are."""
    key = os.environ["AGENTRUN_IDEMPOTENCY_KEY"]
    box = Path(maildir)
    for name in ("tmp", "new", "cur"):
        (box / name).mkdir(parents=True, exist_ok=True)
    # a mail program moves what was read from `new` to `cur` and adds flags after a colon
    there = {path.name.partition(":")[0] for folder in ("new", "cur") for path in (box / folder).iterdir()}
    written = 0
    for quote in quotes:
        name = f"{key}.{quote_plus(quote['customer'])}"
        if name in there:
            print(f"{quote['customer']}: has its mail from an earlier attempt")
            continue
        with open(box / "tmp" / name, "wb") as file:
            file.write(bytes(mail(quote, name)))
            file.flush()
            os.fsync(file.fileno())
        os.rename(box / "tmp" / name, box / "new" / name)
        written += 1
        print(f"{quote['customer']}: mail written")
        time.sleep(float(pause))
    return {"written": written, "there": len(quotes), "key": key}


def mail(quote, name):
    message = EmailMessage()
    message["From"] = "quotes@freight.example"
    message["To"] = quote["email"]
    message["Subject"] = f"Your request: {quote['kg']} kg, {quote['lane']}"
    message["Message-ID"] = f"<{name}@freight.example>"  # the same in every attempt: a receiver can tell doubles
    message.set_content(f"Dear {quote['customer']},\n\n{summary(quote)}\n\nYour freight desk\n")
    return message


def summary(quote):
    asked = f"{quote['kg']} kg, {quote['lane']}, in {quote['max_days']} days"
    if not quote["offer"]:
        return f"{asked}: no carrier has room for it."
    best = quote["offer"]
    return f"{asked}: {best['carrier']}, {best['days']} days, {best['cents'] // 100}.{best['cents'] % 100:02} EUR."


def cents(text):
    """`1,234.50 EUR` as a whole number of cents."""
    return int(Decimal(text.replace("EUR", "").replace(",", "").strip()) * 100)
