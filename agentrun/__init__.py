"""Durable jobs for cron: the shell and Python steps of a YAML file, checkpointed, supervised, resumable."""

__version__ = "0.1.0"
