"""Runs a module as `python -m MODULE …` does, and ends it when its parent is gone: `python -m demo.tether MODULE …`.

Standard input is a pipe, and the parent holds its other end. However the parent ends, even by kill -9, the kernel
closes that end, and this process reads the end of the pipe.
"""

import os
import runpy
import signal
import sys
import threading
import time

GRACE = 12  # seconds between SIGTERM and SIGKILL, the same as in the launcher


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
    if os.getpgrp() == os.getpid():  # the group is our own: kill the processes that this one started, too
        os.killpg(0, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
