"""Runs queued as arq jobs in Redis: the default backend.

A job is what arq's own `enqueue_job` would write, as JSON and never pickled: a key that holds the call, and the job's
id in the queue's sorted set (`layout`). Two things differ from stock arq:

- A worker blocks on the sorted set (BZPOPMIN). A stock worker polls it every 0.5 s. Redis hands a new job to one
  waiting worker, in one round trip. Jobs that are not due yet wait in a second sorted set.
- So a job leaves the queue when a worker takes it. Stock arq leaves it there behind an in-progress key, which outlives
  a crashed worker by hours. Here the row of the run says which worker executes it.

Not every worker of a queue can execute every run (`versions`).
"""

from taskapi.backends.arq.backend import ArqBackend
from taskapi.backends.arq.queue import ArqQueue

__all__ = ["ArqBackend", "ArqQueue"]
