"""Children that end with their parent, whichever thread started them."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from stream.child_process import start_child

SLEEP = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
PARENT = f"""
import threading, time
from stream.child_process import start_child
def start():
    print(start_child({SLEEP!r}).pid, flush=True)
start()
thread = threading.Thread(target=start)
thread.start()
thread.join()
time.sleep(600)
"""
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")


def test_children_end_when_their_parent_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    children = [psutil.Process(int(parent.stdout.readline())) for _ in range(2)]
    time.sleep(0.2)
    assert all(child.is_running() for child in children)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []


def test_a_child_outlives_the_thread_that_started_it() -> None:
    with ThreadPoolExecutor(1) as pool:
        child = pool.submit(start_child, SLEEP).result()
    time.sleep(0.5)
    assert child.poll() is None
    child.kill()
    child.wait()


def test_a_program_that_does_not_exist_is_an_error_in_any_thread() -> None:
    with pytest.raises(FileNotFoundError):
        start_child(["/nowhere/at-all"])
    with ThreadPoolExecutor(1) as pool, pytest.raises(FileNotFoundError):
        pool.submit(start_child, ["/nowhere/at-all"]).result()
