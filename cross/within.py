"""Runs a command as root of a user and mount namespace of its own, in which ids are those of this machine:
cross/within.py [--system PIDFILE] COMMAND...

For root only. What it mounts is seen by nobody else, and it may own files by any of the ids 0 to 65535, as a package needs.
`unshare --map-users` would do, where newuidmap is.

With --system it has processes, a network, a host name and control groups of its own too, and is process 1 there: a systemd
can run so. PIDFILE gets its number outside. All that it started ends with it, and it with this program.
"""

import ctypes
import fcntl
import os
import signal
import socket
import struct
import sys

NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = (
    0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)
PR_SET_PDEATHSIG, SIOCSIFFLAGS, IFF_UP = 1, 0x8914, 1
libc = ctypes.CDLL(None, use_errno=True)


def main():
    command, pid_file, flags = sys.argv[1:], None, NEWUSER | NEWNS | NEWIPC
    if command[:1] == ["--system"]:
        pid_file, command = command[1], command[2:]
        flags |= NEWPID | NEWNET | NEWUTS | NEWCGROUP
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        if pid_file:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if libc.unshare(flags):
            sys.exit(f"within: unshare: {os.strerror(ctypes.get_errno())}")
        os.write(ready[1], b"r")
        os.read(go[0], 1)
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        if pid_file:
            # Taken back by the change of ids.
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            first = os.fork()
            if first:
                with open(pid_file + ".part", "w") as file:
                    file.write(str(first))
                os.rename(pid_file + ".part", pid_file)
                sys.exit(ended(first))
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            # Loopback: up.
            fcntl.ioctl(socket.socket(), SIOCSIFFLAGS, struct.pack("16sh", b"lo", IFF_UP))
        os.execvp(command[0], command)
    os.close(ready[1])
    if os.read(ready[0], 1):
        for which in ("uid_map", "gid_map"):
            with open(f"/proc/{child}/{which}", "w") as file:
                file.write("0 0 65536")
        os.write(go[1], b"g")
    sys.exit(ended(child))


def ended(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF


main()
