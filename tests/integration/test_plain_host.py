"""A host in a plain Python script: no worker process, no server, no Redis."""

import json
import subprocess
import sys

from tests.integration.contract.guarantees import check_stream


def test_a_script_executes_runs_and_follows_them_without_any_server(tmp_path):
    command = [sys.executable, "-m", "tests.support.plain_host", str(tmp_path / "plain.sqlite3")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    frames = seen["frames"]
    check_stream(frames)
    assert frames[0]["type"] == "snapshot"
    assert [frame["message"] for frame in frames if frame["type"] == "message"] == [0, 1, 2, 3, 4]
    assert frames[-1]["task"]["outputs"] == seen["outputs"] == {"counted": 5}
    assert seen["messages"] == [0, 1, 2, 3, 4]
    assert seen["cancelled"] == "cancelled"
    assert seen["connected"] == []
    assert "Traceback" not in done.stderr
