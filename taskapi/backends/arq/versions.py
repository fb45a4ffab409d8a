"""Workers of several versions on one queue.

During a deploy, some workers do not know a task yet, or not its inputs. Those of another installation on the same Redis
have no row of the run. So workers with the same code and database are of one version (taskapi.tasks.registry). Each
version has a sorted set of its own beside the queue, and its workers block on that as well. A worker sets aside a job
that it cannot execute, for the next version that has workers, until each version has been asked once.
"""

from __future__ import annotations

from typing import Any

from taskapi.backends.arq.layout import queue_key
from taskapi.conf import settings
from taskapi.tasks.registry import version

VERSIONS_SUFFIX = ":versions"  # of the sorted set of a queue's versions, by the time until which each has workers
VERSION_SUFFIX = ":version:"  # then a version: of the sorted set of the jobs that were set aside for it
LEFT_SUFFIX = ":left"  # of the sorted set of a queue's jobs that none of the versions has taken
LEFT_INFIX = ":left:"  # after the prefix; then a job's id: of the set of the versions that have left it
VERSION_LIFETIME = 15  # seconds after which a version has no workers any more, unless one of them has said so again
LEFT_LIFETIME = 5  # seconds after which a version that has left a run may be asked again: less than runs.UNKNOWN_PAUSE
ASIDE_LIFETIME = 3600  # seconds for which a job that was set aside waits for a worker


def this_version() -> str:
    """The version of this process."""
    return version()


def set_aside_key(queue: str, name: str) -> str:
    """The sorted set of the queue's jobs that were set aside for a version."""
    return queue_key(queue) + VERSION_SUFFIX + name


def set_aside(queue: str, job_id: str) -> dict[str, Any]:
    """The arguments of the script SET_ASIDE, for a job that this process leaves."""
    key = queue_key(queue)
    keys = [key + VERSIONS_SUFFIX, settings.redis_prefix + LEFT_INFIX + job_id, key + LEFT_SUFFIX]
    return {"keys": keys, "args": [this_version(), job_id, set_aside_key(queue, ""), ASIDE_LIFETIME, LEFT_LIFETIME]}
