#!/usr/bin/env python3
"""Runs COMMAND as root of a user and mount namespace in which the first 65,536 users of this machine are themselves: it may
mount, and own files as any of them, where the machine itself allows no mount (a container). Needs root, and nothing that
has to be installed: `unshare --map-users` needs newuidmap.

usage: cross/namespace.py COMMAND [ARGUMENT...]
"""

import ctypes
import os
import sys

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000  # linux/sched.h
USERS = 65536

if len(sys.argv) < 2:
    sys.exit(__doc__.splitlines()[-1])
if os.geteuid() != 0:
    sys.exit("namespace: only root can hand on its users; run it as root")
unshared, go = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNS):
        sys.exit(f"namespace: the kernel gives none: {os.strerror(ctypes.get_errno())}")
    os.write(unshared[1], b".")
    os.close(unshared[1])
    os.read(go[0], 1)
    os.setgid(0)
    os.setuid(0)
    os.execvp(sys.argv[1], sys.argv[1:])
os.close(unshared[1])
if os.read(unshared[0], 1):
    for users in ("uid_map", "gid_map"):
        with open(f"/proc/{child}/{users}", "w") as file:
            file.write(f"0 0 {USERS}")
    os.write(go[1], b".")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
