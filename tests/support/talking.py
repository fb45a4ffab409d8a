"""A task that says much, in two attempts."""

import asyncio

from taskapi.tasks import Task


class TalkAgain(Task):
    """Fail in the first attempt, and succeed in the second."""

    name = "talk_again"
    max_attempts = 2
    retry_on = (ConnectionError,)
    retry_delay = 0

    async def run(self):
        for n in self.track(range(20)):
            self.add_message([self.info.attempt, n])
            await asyncio.sleep(0.001)
        if self.info.attempt == 1:
            raise ConnectionError("not now")
