"""The simulated fleet as a process of its own."""

import subprocess
import sys

ENDS = """
import threading, time
from telemetry.simulate import _stop_at_end_of_input
stop = threading.Event()
threading.Thread(target=_stop_at_end_of_input, args=[stop], daemon=True).start()
stop.wait(1.0 if {waits} else 20.0)
print("ended by input" if stop.is_set() else "ended by itself")
"""


def test_it_ends_in_peace_while_its_input_is_open():
    process = subprocess.Popen(
        [sys.executable, "-c", ENDS.format(waits=True)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.wait(30) == 0  # as after Ctrl-C, which reaches it and `up` alike
    out, err = process.communicate()
    assert (out, err) == (b"ended by itself\n", b"")


def test_it_ends_with_its_input():
    ended = subprocess.run(
        [sys.executable, "-c", ENDS.format(waits=False)], input=b"", capture_output=True, check=True
    )
    assert (ended.stdout, ended.stderr) == (b"ended by input\n", b"")
