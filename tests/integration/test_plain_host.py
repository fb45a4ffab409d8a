"""A host in a plain Python script: no worker process, no server, no Redis."""

import json
import subprocess
import sys


def test_a_script_executes_runs_and_follows_them_without_any_server(tmp_path):
    command = [sys.executable, "-m", "tests.support.plain_host", str(tmp_path / "plain.sqlite3")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    states = seen["states"]
    assert states[-1] == ["succeeded", 5, 5]
    assert any(status == "running" for status, *_ in states), states
    progress = [value for _, value, _ in states if value is not None]
    assert progress == sorted(progress)
    assert seen["outputs"] == {"counted": 5}
    assert seen["messages"] == [0, 1, 2, 3, 4]
    assert seen["cancelled"] == "cancelled"
    assert seen["connected"] == []
    assert "Traceback" not in done.stderr
