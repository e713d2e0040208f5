"""A model server that answers without a model: the part of OpenAI's /v1/chat/completions that agent.py needs.

Its answers are made from the prompt alone, so the same question has the same answer for ever. It understands what
agent.py asks (a first word such as `PLAN:` and facts as JSON), and answers anything else with a hash. Tokens are
counted as four characters each. Some of the models it has are there to try things out:

    fake             answers at once
    fake-slow        takes half a second, so that there is time to kill something
    fake-flaky       refuses half of the prompts once, with 429 or with 500
    fake-restless    never has enough: its search ends by `max` or by a budget
    fake-harsh       lets no draft pass that no person has checked

Every call leaves two lines of JSON in the ledger, when it comes and when it is answered: that is the bill.
`python server.py FOLDER` keeps ledger.jsonl and server.port there, serves one machine, and ends when nobody has
asked for a minute. Who holds the lock on server.port serves at that port: it lasts exactly as long as the server.
"""

import fcntl
import hashlib
import json
import os
import re
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer

IDLE = 60  # seconds
ASPECTS = ("instruments", "mathematics", "money", "mistakes")


# ---- what it answers


def plan(model, facts):
    return {"questions": [f"Which {aspect} mattered? ({facts['topic']})" for aspect in ASPECTS]}


def search(model, facts):
    """The next question's second word; enough when there is no question left."""
    questions, made = facts["questions"], len(facts["queries"])
    query = questions[made % len(questions)].split()[1]
    return {"query": query, "enough": made + 1 >= len(questions) and model != "fake-restless"}


def judge(model, facts):
    return {"keep": sorted(facts["candidates"])}


def summarize(model, facts):
    """Its title, and its first sentence on one of the aspects."""
    title, _, text = facts["text"].partition("\n")
    sentences = re.split(r"(?<=[.]) ", " ".join(text.split()))
    on_topic = [sentence for sentence in sentences if any(aspect in sentence for aspect in ASPECTS)]
    return {"summary": f"{title}: {(on_topic or sentences)[0]}"}


def write(model, facts):
    word = facts["question"].split()[1].lower()
    close = [summary for summary in facts["summaries"] if word in summary.lower()]
    return {"section": " ".join(close or facts["summaries"][:1])}


def review(model, facts):
    passes = model != "fake-harsh" or "checked by" in facts["draft"].lower()
    return {"passes": passes, "remarks": "" if passes else "nobody has checked it: add a line 'Checked by ...'"}


TASKS = {"PLAN": plan, "SEARCH": search, "JUDGE": judge, "SUMMARIZE": summarize, "WRITE": write, "REVIEW": review}


def answer(model, messages):
    """The text of the answer. Of what it does not understand: a text of its own all the same."""
    task = re.match(r"[A-Z]+", messages[0]["content"])
    try:
        return json.dumps(TASKS[task[0]](model, json.loads(messages[-1]["content"])))
    except (TypeError, LookupError, ValueError):
        return f"I have nothing to say on {fingerprint(messages)}."


def fingerprint(*asked):
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:12]


# ---- how it serves


class ModelServer(ThreadingHTTPServer):
    """Serves at a free port of this machine. What `answered` and `refusal` do can be changed by a subclass."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, ledger):
        self.is_idle = False
        self.timeout = IDLE
        self._lock = threading.Lock()
        self._ledger = Path(ledger)
        self._ledger.touch()
        lines = [json.loads(line) for line in self._ledger.read_text().splitlines() if line.endswith("}")]
        self.calls = max((line["call"] for line in lines), default=0)
        self.tokens = max((line["tokens"] for line in lines), default=0)
        self.asked = {line["prompt"] for line in lines}
        super().__init__(("127.0.0.1", 0), Handler)

    def server_bind(self):
        TCPServer.server_bind(self)  # HTTPServer asks the DNS for a name
        self.server_name, self.server_port = self.server_address

    def handle_timeout(self):
        self.is_idle = True

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"

    def begin(self, model, messages):
        """Note a call. Its number, and whether its prompt was asked before."""
        prompt = fingerprint(model, messages)
        with self._lock:
            self.calls += 1
            again = prompt in self.asked
            self.asked.add(prompt)
            self._note(self.calls, "asked", model, messages)
            return self.calls, again

    def refusal(self, model, messages, again):
        """The status with which a call is refused; None: it is answered."""
        if model != "fake-flaky" or again:
            return None
        digit = int(fingerprint(model, messages)[0], 16)
        return (None, 429, None, 500)[digit % 4]

    def completion(self, call, model, messages):
        """The answer as OpenAI gives it, when it is noted in the ledger."""
        if model == "fake-slow":
            time.sleep(0.5)
        text = answer(model, messages)
        usage = self.usage(messages, text)
        with self._lock:
            self.tokens += usage["prompt_tokens"] + usage["completion_tokens"]
            self._note(call, "answered", model, messages)
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        usage["total_tokens"] = sum(usage.values())
        return {"id": f"chatcmpl-{call}", "object": "chat.completion", "model": model, "choices": [choice],
                "usage": usage}  # fmt: skip

    def usage(self, messages, text):
        asked = sum(len(message["content"]) for message in messages)
        return {"prompt_tokens": 1 + asked // 4, "completion_tokens": 1 + len(text) // 4}

    def _note(self, call, event, model, messages):
        """One line: `tokens` is the sum of all calls that were answered so far."""
        line = {"at": time.time(), "call": call, "event": event, "model": model,
                "task": messages[0]["content"].partition(":")[0], "prompt": fingerprint(model, messages),
                "tokens": self.tokens, "server": os.getpid()}  # fmt: skip
        with open(self._ledger, "ab") as file:
            file.write(json.dumps(line).encode() + b"\n")


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        try:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            model, messages = request["model"], request["messages"]
        except (TypeError, ValueError, LookupError):
            return self.reply(400, {"error": {"message": "this is no chat completion"}})
        if not self.path.endswith("/chat/completions"):
            return self.reply(404, {"error": {"message": f"there is no {self.path}"}})
        if not model.startswith("fake"):
            return self.reply(404, {"error": {"message": f"there is no model {model!r} here, but fake and its kind"}})
        call, again = self.server.begin(model, messages)
        if status := self.server.refusal(model, messages, again):
            return self.reply(status, {"error": {"message": "not now"}})
        return self.reply(200, self.server.completion(call, model, messages))

    def reply(self, status, body):
        data = json.dumps(body).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except ConnectionError:
            pass  # who asked was killed meanwhile

    def log_message(self, *what):
        pass


def main(folder):
    with open(Path(folder, "server.port"), "a+", encoding="ascii") as port:
        fcntl.flock(port, fcntl.LOCK_EX)
        port.truncate(0)
        server = ModelServer(Path(folder, "ledger.jsonl"))
        port.write(str(server.server_port))
        port.flush()
        print("ready", flush=True)
        while not server.is_idle:
            server.handle_request()


if __name__ == "__main__":
    main(sys.argv[1])
