"""Find a Chromium for the browser tests, and install one if there is none.

``python -m tools.chromium`` prints its path, or says what to do.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from playwright.sync_api import sync_playwright

COMMANDS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MAC_APPLICATIONS = (
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
STEP_TIMEOUT = 600  # seconds for a download or the installation of a package; after that, something hangs


def find() -> str | None:
    """Return the path of $CHROMIUM, or else of the system's Chromium or Chrome, or else of Playwright's own."""
    if chosen := os.environ.get("CHROMIUM"):
        return shutil.which(chosen)
    with sync_playwright() as playwright:
        candidates = [*COMMANDS, *MAC_APPLICATIONS, playwright.chromium.executable_path]
    return next((path for name in candidates if (path := shutil.which(name)) and runs(path)), None)


def runs(path: str) -> bool:
    """Return whether it starts: a download may lack libraries of the system, and some commands are only stubs."""
    return subprocess.run([path, "--version"], capture_output=True, check=False).returncode == 0


def install() -> None:
    """Try Playwright's download, then the system's package; `find` shows whether that worked."""
    steps = [[sys.executable, "-m", "playwright", "install", "chromium"]]
    if shutil.which("apt-get"):
        sudo = [] if os.geteuid() == 0 else ["sudo", "--non-interactive"]
        steps += [[*sudo, "apt-get", "update"], [*sudo, "apt-get", "install", "--yes", "chromium"]]
    for step in steps:
        if find() is None and shutil.which(step[0]):
            print("No Chromium is installed here; trying:", *step, file=sys.stderr)
            subprocess.run(step, stdout=sys.stderr, stdin=subprocess.DEVNULL, check=False, timeout=STEP_TIMEOUT)


def main() -> int:
    if "CHROMIUM" not in os.environ:
        install()
    if path := find():
        print(path)
        return 0
    print(
        "The browser tests need Chromium or Google Chrome. Install one, or set CHROMIUM to the path of one "
        "(a command or a file that can be run).",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
