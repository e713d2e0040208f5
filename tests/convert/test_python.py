"""A Python script as a job with one step, and the calls in it that deserve @step."""

from __future__ import annotations

import ast
import os
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from agentrun.convert.calling import job_name
from agentrun.convert.pycalls import calls
from agentrun.convert.python import convert, is_python
from agentrun.errors import UsageError

CALLS = [
    # network, by module, alias, from-import, session, and what a function of the script returns
    ("import requests\nrequests.get(u)", "asked"),
    ("import requests as r\nr.post(u)", "sent"),
    ("from requests import post as p\np(u)", "sent"),
    ("from requests import Session\ns = Session()\ns.patch(u)", "sent"),
    ("import httpx\nasync def f():\n  async with httpx.AsyncClient() as c:\n    await c.get(u)", "asked"),
    ("import requests\ndef s():\n  return requests.Session()\ns().post(u)", "sent"),
    ("import httpx\nclass A:\n  def __init__(self):\n    self.c = httpx.Client()\n  def f(self):\n    self.c.post(u)",
     "sent"),
    ("import requests\ndef f(s: requests.Session):\n  s.put(u)", "asked"),
    ("import requests\nrequests.request('POST', u)", "sent"),
    ("from urllib.request import urlopen\nimport urllib.request\nurllib.request.urlopen(u)", "asked"),
    ("import urllib.request\nurllib.request.urlopen(u, data=b'x')", "sent"),
    ("import requests\nanswer = requests.Session().headers.get('x')", None),
    ("def f(requests):\n  requests.post(u)", None),
    # clouds, models, messages
    ("import boto3\ns3 = boto3.client('s3')\ns3.upload_file(a, b, c)", "asked"),
    ("import boto3\nboto3.client('sns').publish(Message=m)", "sent"),
    ("import boto3\nboto3.client('s3').get_paginator('x')", None),
    ("import boto3\nboto3.client('s3').list_objects(Bucket=b).get('Contents')", "asked"),
    ("from openai import OpenAI\nOpenAI().chat.completions.create(model=m)", "paid"),
    ("def f(client):\n  client.messages.create(model=m)", "paid"),
    ("from slack_sdk import WebClient\nWebClient(t).chat_postMessage(text=x)", "sent"),
    ("import smtplib\nwith smtplib.SMTP(h) as s:\n  s.send_message(m)", "mail"),
    # commands
    ("import subprocess as sp\nsp.run(['rsync', '-a'])", "command"),
    ("import subprocess\nsubprocess.check_output(['git', 'rev-parse', 'HEAD'])", None),
    ("import os\nos.system('date')", None),
    ("import os\nos.system('/opt/x.sh')", "command"),
    # databases
    ("def f(cursor):\n  cursor.execute('insert into t values (1)')", "database"),
    ("def f(cursor):\n  cursor.execute('select 1')", None),
    ("Q = 'UPDATE t SET x = 1'\ndef f(cursor):\n  cursor.execute(Q)", "database"),
    ("def f(c, t):\n  c.execute(f'DELETE FROM {t}')", "database"),
    ("def f(c):\n  c.execute('CREATE TABLE IF NOT EXISTS t (x)')", None),
    ("def f(c):\n  c.execute('INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING')", None),
    ("import sqlite3\nconn = sqlite3.connect(p)\nconn.commit()", "database"),
    ("def f(repo):\n  repo.commit('message')", None),
    ("import pandas as pd\nframe.to_sql('t', e)", "database"),
    ("def f(db):\n  db.users.insert_one({})", "database"),
    # files
    ("import shutil\nshutil.move(a, b)", "files"),
    ("from pathlib import Path\n(Path(a) / 'b').unlink()", "files"),
    ("from pathlib import Path\nPath(a).unlink(missing_ok=True)", None),
    ("import os\nif os.path.exists(p):\n  os.remove(p)", None),
    ("import os\ntry:\n  os.remove(p)\nexcept FileNotFoundError:\n  pass", None),
    ("import shutil\nshutil.rmtree(p, ignore_errors=True)", None),
    # done already
    ("import requests\nfrom agentrun.durable import step\n@step(retry=3)\ndef f():\n  requests.post(u)", None),
]  # fmt: skip


@pytest.mark.parametrize(("source", "what"), CALLS)
def test_a_call_is_known_by_what_its_names_stand_for(source: str, what: str | None) -> None:
    assert [call.what for call in calls(ast.parse(source))] == ([what] if what else [])


def test_a_commit_beside_its_statements_is_not_named_twice() -> None:
    source = "import sqlite3\nc = sqlite3.connect(p)\nc.execute('INSERT INTO t VALUES (1)')\nc.commit()"
    assert [call.name for call in calls(ast.parse(source))] == ["c.execute"]


SCRIPT = dedent('''\
    """Send the figures.

    To everybody.
    """
    import requests

    def page(number):
        return requests.get(f"http://x/{number}").json()

    def main():
        for number in range(9):
            page(number)
            requests.post("http://y")
            requests.post("http://z")

    main()
    ''')


def test_the_job_calls_the_script_and_the_notes_say_where_and_why(tmp_path: Path) -> None:
    file = tmp_path / "send figures.py"
    file.write_text(SCRIPT)
    draft, notes, *_ = convert(SCRIPT.encode(), str(file))
    text, job = draft.checked("x.yaml")
    assert (job.name, job.description, len(job.steps)) == ("send-figures", "Send the figures", 1)
    assert job.steps[0].run == f"python3 '{file}'"
    assert job.steps[0].on_interrupt == "ask" and "# requests.post() (line 13, and 1 more)" in text
    said = {note.line: (note.message, note.hint) for note in notes if note.kind == "advice"}
    assert said[8][0].startswith("requests.get() in page(): network") and said[8][1] == "@step on page()"
    assert said[13][0].startswith("requests.post() in main(), in a loop, line 14 too: it changes something")
    assert said[13][1] == "put it into a function of its own with @step"
    assert "3 calls deserve @step" in said[0][0]


def test_a_script_that_only_asks_runs_again_unasked(tmp_path: Path) -> None:
    draft, *_ = convert(b"import requests\nrequests.get('http://x')\n", str(tmp_path / "x.py"))
    assert draft.checked("x.yaml")[1].steps[0].on_interrupt == "rerun"


@pytest.mark.parametrize(
    ("first", "executable", "venv", "command"),
    [
        ("", False, "", "python3 {file}"),
        ("#!/usr/bin/env python3", True, "", "{file}"),
        ("#!/usr/bin/env python3", True, ".venv", "{file}"),  # as it is started now
        ("", True, "", "python3 {file}"),  # no first line: the kernel does not start it
        ("#!/usr/bin/env python2", False, "", "python2 {file}"),
        ("#!/usr/bin/python3.9 -u", False, "", "/usr/bin/python3.9 -u {file}"),
        ("#!/usr/bin/env -S python3 -u", False, "", "python3 -u {file}"),
        ("", False, ".venv", "{folder}/.venv/bin/python {file}"),
        ("#!/usr/bin/env python3", False, "venv", "{folder}/venv/bin/python {file}"),
    ],
)
def test_which_python(tmp_path: Path, first: str, executable: bool, venv: str, command: str) -> None:
    file = tmp_path / "x.py"
    file.write_text(f"{first}\nprint(1)\n")
    file.chmod(0o755 if executable else 0o644)
    if venv:
        (tmp_path / venv / "bin").mkdir(parents=True)
        (tmp_path / venv / "pyvenv.cfg").touch()
        os.symlink(sys.executable, tmp_path / venv / "bin" / "python")
    draft, notes, *_ = convert(file.read_bytes(), str(file))
    assert draft.checked("x.yaml")[1].steps[0].run == command.format(file=file, folder=tmp_path)
    unused = [note.hint for note in notes if "is not found" in note.message]
    assert bool(unused) == (bool(venv) and executable)


@pytest.mark.parametrize(
    ("source", "said", "line"),
    [
        (b"import os\nprint 'x'\n", "this looks like Python 2: Missing parentheses", 2),
        (b"def f(:\n  pass\n", "it is not Python 3: invalid syntax", 1),
        (b"x = '\xff'\n", "it is not Python 3", 1),
        (b"x = 1\0\n", "it is not Python 3", 1),
        (b"(" * 5000, "it is not Python 3", 1),
    ],
)
def test_what_cannot_be_read_is_called_all_the_same(tmp_path: Path, source: bytes, said: str, line: int) -> None:
    draft, notes, *_ = convert(source, str(tmp_path / "old.py"))
    assert draft.checked("x.yaml")[1].steps[0].run == f"python3 {tmp_path}/old.py"
    (note,) = [note for note in notes if "not looked into" in note.message]
    assert said in note.message and note.kind == "kept" and note.line == line


def test_without_a_path_it_cannot_be_called() -> None:
    with pytest.raises(UsageError, match="called by its path") as error:
        convert(b"print(1)\n", None)
    assert error.value.hint == "name the file: agentrun convert FILE"


def test_the_comment_at_the_top_describes_it_where_there_is_no_docstring(tmp_path: Path) -> None:
    source = b"#!/usr/bin/env python3\n# -*- coding: utf-8 -*-\n# Copyright us\n#\n# Fetch it. And more.\n\nprint(1)\n"
    assert dict(convert(source, str(tmp_path / "x.py")).draft.keys)["description"] == "Fetch it"


@pytest.mark.parametrize(
    ("data", "path", "answer"),
    [
        (b"#!/usr/bin/env python3\n", None, True),
        (b"#!/opt/x/.venv/bin/python\n", "x", True),
        (b"#!/bin/sh\n# python3 \n", "x.py", False),
        (b"print(1)\n", "x.py", True),
        (b"print(1)\n", "x", False),
    ],
)
def test_is_python(data: bytes, path: str | None, answer: bool) -> None:
    assert is_python(data, path) is answer


@pytest.mark.parametrize(
    ("path", "name"),
    [("/x/a b.py", "a-b"), ("sync", "sync"), ("/x/.hidden.py", "hidden"), ("/x/ü.py", "job"), ("y" * 99, "y" * 64)],
)
def test_job_name(path: str, name: str) -> None:
    assert job_name(path) == name
