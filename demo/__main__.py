"""`python -m demo`: start the page, the worker and Redis together; one Ctrl-C ends them all."""

import sys

# Before the other imports: in an older Python they would end in a traceback.
if sys.version_info < (3, 11):  # noqa: UP036 - the reader of this sentence has an older Python
    sys.exit(
        "The demo needs Python 3.11 or newer, and this is Python {}.{}. Install a newer one and start the demo "
        "with it: python3.11 -m demo".format(*sys.version_info)
    )

try:
    from demo.launcher import main

    sys.exit(main())
except KeyboardInterrupt:  # Ctrl-C before the launcher listens for it: nothing was started yet
    sys.exit(130)
