"""A process that has queued a run prints nothing when it ends."""

import os
import subprocess
import sys

PROGRAM = """
from uuid import uuid4
import django
django.setup()
from django.utils import autoreload
from taskapi.backends import get_backend
get_backend().enqueue(uuid4(), queue="nobody")
autoreload.iter_all_python_module_files()  # keeps all modules, so that the interpreter takes them apart one by one
"""


def test_nothing_is_printed_when_a_process_ends_that_has_queued_runs(valkey_server):
    """As `runserver` does when it loads itself again."""
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "tests.project.settings", "TEST_REDIS_URL": valkey_server}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")
