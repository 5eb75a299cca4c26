"""A preparation that is killed: what it leaves is no harm, and the next one ends as if nothing had been."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engagement_recognition.data.preparation.prepared_data import load_prepared


@pytest.mark.slow
def test_ten_kills_at_random_moments_change_nothing(drawn_daisee: Path, tmp_path: Path):
    program = "from engagement_recognition.data.preparation import prepare as p; p.CLIPS_PER_PART['video'] = 2; "
    program += "from engagement_recognition.cli.main import main; main()"
    command = [sys.executable, "-c", program, "prepare", "daisee", str(drawn_daisee), "--processes", "1", "--output"]
    subprocess.run([*command, str(tmp_path / "calm")], check=True, capture_output=True)
    rng = random.Random(0)
    for kill in range(10):
        started = subprocess.Popen(
            [*command, str(tmp_path / f"killed{kill}")], stderr=subprocess.PIPE, stdout=subprocess.PIPE
        )
        while not (tmp_path / f"killed{kill}/plan.json").exists():
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 3))
        os.kill(started.pid, signal.SIGKILL)
        started.communicate()
        subprocess.run([*command, str(tmp_path / f"killed{kill}")], check=True, capture_output=True)
        assert load_prepared(tmp_path / f"killed{kill}").fingerprint == load_prepared(tmp_path / "calm").fingerprint


def test_workers_end_with_the_process_that_started_them(tmp_path: Path):
    # A killed parent cannot tell them.
    worker = "from engagement_recognition.data.preparation.parts import leave_with_parent; import os, sys, time; "
    worker += "leave_with_parent(os.getppid()); print(os.getpid(), flush=True); time.sleep(120)"
    start = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {worker!r}]); time.sleep(120)"
    parent = subprocess.Popen([sys.executable, "-c", start], stdout=subprocess.PIPE)
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_running(pid)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # nobody waits for an orphan's end in a container without an init
