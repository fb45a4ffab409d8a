"""Runs a module as `python -m MODULE …` does, and ends it when its parent is gone: `python -m demo.tether MODULE …`.

Standard input is a pipe whose other end the parent holds. However the parent ends, kill -9 included, the kernel
closes that end, and reading the pipe comes to its end here.
"""

import os
import runpy
import signal
import sys
import threading
import time

GRACE = 12  # seconds from the request to end to the end by force, as the launcher gives


def main() -> None:
    module, *arguments = sys.argv[1:]
    threading.Thread(target=end_with_parent, name="tether", daemon=True).start()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    if os.getpgrp() == os.getpid():  # a group of our own: whatever this process started ends too
        os.killpg(0, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
