"""Child processes: one that hangs, crashes or leaks takes nothing else with it.

A thread can't be killed, a process can. `ChildProcess` is a child as its parent sees it, `Parent` the parent as the
child sees it. A child is Python started anew, never a fork of this process and its threads. It is a process group and
a session of its own. Its module path is its parent's, and no environment variable of Python's counts. Messages are
lists of byte strings over two pipes: what they mean is for the two sides to say, and there is no pickle. What a child
prints goes to standard error. A child ends with its parent, however that ends, and takes the processes with it that it
has started.
"""

from __future__ import annotations

from splitiot._child._messages import MAX_BYTES, Garbled, Message
from splitiot._child._parent import Parent, limit_memory
from splitiot._child._process import ChildDied, ChildHung, ChildProcess

__all__ = ["MAX_BYTES", "ChildDied", "ChildHung", "ChildProcess", "Garbled", "Message", "Parent", "limit_memory"]
