"""A store in a child that was forked while a thread of its parent used it."""

import subprocess
import sys

FORKING = """
import os, signal, sys, threading
from proxy_middleware.stores import MemoryStore, Tokens

store = MemoryStore()
store.put("c", Tokens("access"))
held, done = threading.Event(), threading.Event()

def hold():
    with store._lock:
        held.set()
        done.wait()

threading.Thread(target=hold).start()
held.wait()
child = os.fork()
if not child:
    signal.alarm(10)
    os._exit(0 if store.load("c").tokens == Tokens("access") and store.acquire("c", "child", 1) else 1)
status = os.waitpid(child, 0)[1]
done.set()
sys.exit(os.waitstatus_to_exitcode(status) != 0)
"""


def test_memory_store_after_a_fork() -> None:
    """A child has what was stored, and waits for no lock that a thread of its parent holds."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", FORKING], timeout=30, check=False)
    assert done.returncode == 0
