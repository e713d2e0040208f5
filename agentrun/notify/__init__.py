"""Telling people and monitors what has become of jobs, without ever keeping a run waiting.

    hearers      who wants to hear of a job: its `notify`, else that of config.yaml; and the outbox as runs see it
    occasions    what happened becomes notices: which event, how often in a row, whom to tell, what to fold
    words        the notice itself: JSON for programs, a line and a text for people
    deliverer    `agentrun deliver`: sends what is due, one process for each notice, and records what came of it
    senders      how a notice reaches each kind of target
    web          the requests of webhooks and pings

The rows are those of `store/notices.py`. A run writes what happened in the very transaction that records it, starts a
deliverer of its own session, and ends; what cannot be sent now is tried again by whoever comes by: the next run that
has something to tell, or `agentrun resume`.
"""
