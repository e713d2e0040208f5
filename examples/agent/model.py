"""Asks a model: at OPENAI_BASE_URL if that is set, else the server of this folder, which is started when it is needed.

    OPENAI_BASE_URL   such as https://api.openai.com/v1, or that of any server that speaks its language
    OPENAI_API_KEY    sent as the bearer token, if set
    OPENAI_MODEL      its name, where the job's parameter `model` is empty
    OPENAI_PRICE      what a million tokens cost, `0.15/0.60` for input and output: without it, cost is not known,
                      and no budget of cost can hold

Standard library only.
"""

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

from agentrun.durable import usage

HERE = Path(__file__).parent
OUT = HERE / "out"
FAKE_PRICE = "0.50/2.00"


class Busy(Exception):
    """Not now: too many requests, a server in trouble, a network that is away. Worth another try."""


class Refused(Exception):
    """The server will not answer this, however often it is asked: a wrong key, an unknown model."""


class Unusable(Exception):
    """The model's answer is not what it was asked for. It may be, the next time."""


def call_model(task, facts, model=""):
    """The model's answer, of the form of `task[1]`. It is paid for, so it is reported before anything is made of it."""
    instruction, example = task
    model = model or os.environ.get("OPENAI_MODEL") or "fake"
    system = f"{instruction} Reply with a JSON object such as {json.dumps(example)}"
    asked = json.dumps(facts)
    messages = [{"role": "system", "content": system}, {"role": "user", "content": asked}]
    reply = _post({"model": model, "messages": messages})
    if not reply.get("choices"):
        raise Busy(f"no answer: {json.dumps(reply)[:500]}")  # some say so with status 200
    text = reply["choices"][0]["message"].get("content") or ""
    spent = reply.get("usage") or {}  # a server that does not count must not make a budget blind
    tokens = (
        spent.get("prompt_tokens", len(system + asked) // 4),
        spent.get("completion_tokens", len(text) // 4),
    )
    usage(*tokens, model=model, cost=_cost(*tokens))
    print(f"{instruction.partition(':')[0]}: {model} took {sum(tokens)} tokens")
    return _parsed(text, example)


def _parsed(text, example):
    try:
        answer = json.loads(text[text.index("{") : text.rindex("}") + 1])  # some put it into ``` or say a word first
    except ValueError:
        raise Unusable(f"the model gave no JSON object: {text[:500]}") from None
    for key, like in example.items():
        if not _is_like(answer.get(key), like):
            raise Unusable(f"the model's answer needs {key} such as {json.dumps(like)}: {text[:500]}")
    return answer


def _is_like(value, like):
    if isinstance(like, list):
        return isinstance(value, list) and all(_is_like(item, like[0]) for item in value)
    return isinstance(value, type(like))


def _cost(asked, answered):
    price = os.environ.get("OPENAI_PRICE") or ("" if os.environ.get("OPENAI_BASE_URL") else FAKE_PRICE)
    if not price:
        return None
    asking, answering = map(float, price.split("/"))
    return round((asked * asking + answered * answering) / 1_000_000, 9)


def _post(body):
    # a quarter of the time that a step takes to start: a step whose calls are all done never needs it
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    url = (os.environ.get("OPENAI_BASE_URL") or _fake_url()).rstrip("/") + "/chat/completions"
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get("OPENAI_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    try:
        with urlopen(Request(url, json.dumps(body).encode(), headers), timeout=100) as response:
            return json.load(response)
    except HTTPError as error:
        words = f"{url}: {error.code} {error.reason}: {error.read(500).decode(errors='replace')}"
        raise (Busy if error.code in (408, 409, 429) or error.code >= 500 else Refused)(words) from None
    except (HTTPException, OSError, ValueError) as error:
        raise Busy(f"{url}: {error}") from None


# ---- the server of this folder


def _fake_url():
    """Where it listens. If it does not, it is started: by the first to need it, also after a reboot.

    What a step leaves running, agentrun ends before the next round of the step, or with the run: then whoever needs
    it next starts another. For a server that is to stay there is `leave_running: true`.
    """
    OUT.mkdir(exist_ok=True)
    port = _port()
    if not port:
        with open(OUT / "server.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # freed by the kernel, however this process ends
            port = _port() or _start()
    return f"http://127.0.0.1:{port}/v1"


def _port():
    """The port of the server that lives; empty if none does. A port number alone may be somebody else's by now."""
    try:
        with open(OUT / "server.port", encoding="ascii") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read()
    except FileNotFoundError:
        pass
    return ""


def _start():
    with open(OUT / "server.log", "ab") as log:
        server = subprocess.Popen(
            [sys.executable, str(HERE / "server.py"), str(OUT)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
        )  # fmt: skip
    with server.stdout:
        if server.stdout.readline() != b"ready\n":
            raise Busy(f"the model server did not start: see {log.name}")
    return _port()
