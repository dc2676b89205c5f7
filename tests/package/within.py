"""Runs a command as root of a user and mount namespace of its own, in which ids are those of this machine: within.py COMMAND...

For root only. What it mounts is seen by nobody else, and it may own files by any of the ids 0 to 65535, as a package needs.
`unshare --map-users` would do, where newuidmap is.
"""

import ctypes
import os
import sys

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWIPC = 0x00020000, 0x10000000, 0x08000000
libc = ctypes.CDLL(None, use_errno=True)

ready, go = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWIPC):
        sys.exit(f"within: unshare: {os.strerror(ctypes.get_errno())}")
    os.write(ready[1], b"r")
    os.read(go[0], 1)
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    os.execvp(sys.argv[1], sys.argv[1:])
os.close(ready[1])
if os.read(ready[0], 1):
    for which in ("uid_map", "gid_map"):
        with open(f"/proc/{child}/{which}", "w") as file:
            file.write("0 0 65536")
    os.write(go[1], b"g")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF)
