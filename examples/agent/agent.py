"""The steps of agent.yaml: a model is asked, and what it says is used. Only `ask` costs money.

Each call of `ask` is a checkpoint: a step that is killed and started again runs from its top, and the calls that were
done return what they returned before, without a request. So between two calls nothing may depend on the clock or on
chance. What failed is not recorded: it is asked again.
"""

import json
import os
import re
from pathlib import Path

from model import Busy, Unusable, call_model

from agentrun.durable import output, step

HERE = Path(__file__).parent
LIBRARY = HERE / "library"

# What the model is told, and an example of the answer.
PLAN = "PLAN: Which 4 questions must research on the topic answer?", {"questions": ["..."]}
SEARCH = (
    "SEARCH: The library is searched for single words. Given the questions, the queries made and the files found, what"
    " is the next query, and is it the last one needed?",
    {"query": "...", "enough": True},
)
JUDGE = "JUDGE: Which candidates help to answer the questions?", {"keep": ["file.txt"]}
SUMMARIZE = "SUMMARIZE: What does the text say about the questions?", {"summary": "..."}
WRITE = "WRITE: Answer the question from the summaries, in one paragraph.", {"section": "..."}
REVIEW = "REVIEW: May this report be published?", {"passes": True, "remarks": "..."}


class Rejected(Exception):
    """The review did not let the report pass."""


@step(retry={"max_attempts": 5, "interval": 0.2, "on": (Busy, Unusable)})
def ask(task, facts, model=""):
    """The model's answer as a checkpoint. Where there is none that can be used, it is asked again, within the attempt.

    What could not be used must fail in here: outside, it would be a checkpoint, and the same in every attempt.
    """
    return call_model(task, facts, model)


def plan(topic, model=""):
    return {"questions": ask(PLAN, {"topic": topic}, model)["questions"]}


def search(questions, model=""):
    """One round: a query, and which of its hits are kept. What the round before gave is in OUT_*."""
    queries, found = before("queries"), before("found")
    thought = ask(SEARCH, {"questions": questions, "queries": queries, "found": found}, model)
    hits = {name: title for name, title in look_up(thought["query"]).items() if name not in found}
    kept = []
    if hits:
        kept = ask(JUDGE, {"questions": questions, "candidates": hits}, model)["keep"]
    print(f"{thought['query']}: {len(kept)} new of {len(hits)}")
    output(enough="yes" if thought["enough"] else "no")  # for `until`; the same as to return it
    return {"queries": [*queries, thought["query"]], "found": found + [name for name in kept if name in hits]}


def before(key):
    """What the round before gave; nothing in the first."""
    return json.loads(os.environ.get(f"OUT_{key}", "[]"))


def look_up(query):
    """The titles of the library's texts that have a word of the query, by file name."""
    wanted = set(re.findall(r"\w{4,}", query.lower()))
    hits = {}
    for path in sorted(LIBRARY.glob("*.txt")):
        text = path.read_text(encoding="utf-8")
        if wanted.intersection(re.findall(r"\w+", text.lower())):
            hits[path.name] = text.partition("\n")[0]
    return hits


def summarize(file, questions, model=""):
    text = (LIBRARY / file).read_text(encoding="utf-8")
    return {"summary": ask(SUMMARIZE, {"questions": questions, "text": text}, model)["summary"]}


def write(topic, questions, files, summaries, model=""):
    """A section for each question. Killed after the third, the step does not pay for the first three again."""
    parts = [f"# {topic}"]
    for question in questions:
        section = ask(WRITE, {"question": question, "summaries": summaries}, model)["section"]
        parts.append(f"## {question}\n\n{section}")
    parts.append("Sources: " + ", ".join(files))
    draft = Path(os.environ["AGENTRUN_RUN_DIR"], "draft.md")
    part = draft.with_suffix(".part")
    part.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    part.replace(draft)
    return {"draft": str(draft)}


def review(draft, model=""):
    """Not a checkpoint, on purpose: a resume looks again, at a draft that a person may have mended."""
    verdict = call_model(REVIEW, {"draft": Path(draft).read_text(encoding="utf-8")}, model)
    if not verdict["passes"]:
        raise Rejected(f"{draft}: {verdict['remarks']}")
