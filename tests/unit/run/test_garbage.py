"""Collections are rare while a process starts, and skip the objects of that time afterwards."""

import subprocess
import sys

SCRIPT = """
import gc, weakref
before = gc.get_threshold()
import verl
from verl_relift.run import garbage

assert gc.get_threshold()[0] > 100 * before[0], gc.get_threshold()
assert gc.get_freeze_count() < 10_000  # Python's own
held = len(gc.get_objects())
garbage.freeze()
assert gc.get_freeze_count() >= held, (gc.get_freeze_count(), held)
assert gc.get_threshold() == before

class Node:
    pass

node = Node()
node.itself = node
gone = weakref.ref(node)
del node
gc.collect()
assert gone() is None
print("ok")
"""


def test_only_objects_made_after_the_imports_are_collected():
    result = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0 and result.stdout.endswith("ok\n"), result.stdout + result.stderr
    assert "leak" not in result.stderr
