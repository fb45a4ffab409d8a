"""The virtual environments of the peers: made when they are needed, and again if their requirements change."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "benchmarks" / ".environments"


def python_of(name: str) -> str:
    """A Python of the same version as this one, with the packages of requirements/bench-NAME.txt."""
    requirements = ROOT / "requirements" / f"bench-{name}.txt"
    environment = FOLDER / name
    python, stamp = environment / "bin" / "python", environment / ".made"
    made_of = f"{sys.version}\n{requirements.read_text()}"
    if not stamp.exists() or stamp.read_text() != made_of:
        print(f"Installing {requirements.relative_to(ROOT)}", file=sys.stderr)
        shutil.rmtree(environment, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        subprocess.run([python, "-m", "pip", "install", "-qq", "-r", requirements], check=True)
        stamp.write_text(made_of)
    return str(python)


def versions(python: str, packages: tuple[str, ...]) -> dict[str, str]:
    """The versions of these packages that this Python has."""
    script = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]), sep='\\n')"
    found = subprocess.run([python, "-c", script, *packages], check=True, stdout=subprocess.PIPE, text=True).stdout
    return dict(zip(packages, found.split(), strict=True))
