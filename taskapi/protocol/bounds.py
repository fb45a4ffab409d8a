"""How long, how many and how large what a client sends may be."""

REF_LENGTH = 64  # characters of a client's `ref`
KEY_LENGTH = 255  # characters of an idempotency key, here and in the REST header
TASK_LENGTH = 255  # characters of a task's name
MANY_LENGTH = 1_000  # runs that one call starts
LONGEST_WAIT = 60  # seconds of `Prefer: wait`: many proxies give up on an answer after that
