"""A job as manifests for Kubernetes: a claim for the record, the job file, a CronJob for each schedule. Pure.

What Kubernetes cannot know stands in comments: the image, and that the files which the job names are in it. The record
is on a claim of its own, of one node at a time: agentrun's locks are those of one kernel. The time zone is always
named, to the container too, so that agentrun and Kubernetes mean the same ticks.

A string is written as JSON, which is YAML too; only the job file is a block, where YAML can hold it so.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from .machine import number_fields

if TYPE_CHECKING:
    from ..model import Job, Schedule

_POLICIES = {"forbid": "Forbid", "queue": "Forbid", "replace": "Replace", "allow": "Allow"}
_LONGEST = 52  # characters of a CronJob's name
_DEADLINE = 3600  # seconds; without one, Kubernetes gives up a CronJob that has missed 100 starts


def manifests(job: Job, text: str) -> str:
    """All of them for one job, as a stream of YAML documents. `text`: the job file."""
    name = _name(job.name)
    documents = [_claim(name), _file(name, text)]
    many = len(job.schedule) > 1
    for number, schedule in enumerate(job.schedule, 1):
        documents.append(_cron_job(job, schedule, name, f"{name}-{number}" if many else name))
    return "---\n".join(documents)


def _name(job: str) -> str:
    """A DNS label; with room for the number of a schedule."""
    label = re.sub(r"[^a-z0-9]+", "-", job.lower()).strip("-") or "job"
    return f"agentrun-{label}"[: _LONGEST - 4].rstrip("-")


def _claim(name: str) -> str:
    return f"""\
# The record of the runs. Of one node at a time, on a file system of that node: no NFS.
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: {name}
spec:
  accessModes: [ReadWriteOnce]
  resources:
    requests:
      storage: 1Gi
"""


def _file(name: str, text: str) -> str:
    return f"""\
# The job file alone: scripts and other files that it names have to be in the image.
apiVersion: v1
kind: ConfigMap
metadata:
  name: {name}
data:
  job.yaml: {_block(text)}
"""


def _block(text: str) -> str:
    """A text as a value two levels deep."""
    plain = text.isprintable() or all(line.isprintable() for line in text.split("\n"))
    body = text.rstrip("\n")
    if not plain or not body or body.startswith(("\n", " ")):
        return json.dumps(text)
    ends = len(text) - len(body)
    mark = "|-" if ends == 0 else "|" if ends == 1 else "|+"
    lines = [f"    {line}" if line else "" for line in body.split("\n")]
    return "\n".join([mark, *lines]) + "\n" * max(ends - 1, 0)


def _cron_job(job: Job, schedule: Schedule, name: str, own: str) -> str:
    zone = job.timezone or "Etc/UTC"
    deadline = _DEADLINE if job.start_deadline is None else max(-(-job.start_deadline // 1000), 10)
    unnamed = "" if job.timezone else "  # the job names none: give it a `timezone`, or change it here and below\n"
    return f"""\
apiVersion: batch/v1
kind: CronJob
metadata:
  name: {own}
spec:
  schedule: {json.dumps(number_fields(schedule))}
{unnamed}  timeZone: {json.dumps(zone)}
  concurrencyPolicy: {_POLICIES[job.concurrency.policy]}
  startingDeadlineSeconds: {deadline}
  jobTemplate:
    spec:
      backoffLimit: 0  # agentrun retries, step by step
      template:
        spec:
          restartPolicy: Never
          containers:
            - name: agentrun
              image: REGISTRY/IMAGE:TAG  # yours: with Python, agentrun and what the job's steps need
              command: [python, -P, -m, agentrun, run, /etc/agentrun/job.yaml]
              env:
                - {{name: AGENTRUN_HOME, value: /var/lib/agentrun/record}}
                - {{name: TZ, value: {json.dumps(zone)}}}
              volumeMounts:
                - {{name: record, mountPath: /var/lib/agentrun}}
                - {{name: job, mountPath: /etc/agentrun, readOnly: true}}
          volumes:
            - name: record
              persistentVolumeClaim: {{claimName: {name}}}
            - name: job
              configMap: {{name: {name}}}
"""
