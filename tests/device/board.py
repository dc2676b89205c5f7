"""An emulated aarch64 board: qemu's `virt` with UEFI, a card, a network card and a USB controller.

Nothing here knows Tidegate. The guest reaches this machine as 10.0.2.2; the guest's ports are forwarded on loopback."""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import time

UEFI = "/usr/share/qemu-efi-aarch64/QEMU_EFI.fd"
CARD = 4 << 30


class Failed(Exception):
    """What must hold does not: the message says what."""


def until(what, patience, ask, pause=0.5):
    """Asks until the answer is true, and returns it; `what` is told when patience (seconds) ends."""
    deadline, last = time.monotonic() + patience, None
    while time.monotonic() < deadline:
        try:
            if answer := ask():
                return answer
        except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
            last = error
        time.sleep(pause)
    raise Failed(f"not within {patience} s: {what}" + (f" (last: {last})" if last else ""))


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Board:
    """One board and its card. `forward` names the guest's ports that this machine reaches."""

    def __init__(self, folder, image, key, forward):
        self.folder, self.key = pathlib.Path(folder), key
        self.folder.mkdir(parents=True)
        self.card = self.folder / "card.img"
        subprocess.run(["cp", "--sparse=always", image, self.card], check=True)
        os.truncate(self.card, CARD)  # a card is larger than what is written onto it
        self.ports = {port: free_port() for port in [22, *forward]}
        self.process = self.qmp = self.shared = None
        self.boots = 0

    def start(self, clock="utc"):
        """Powers it on. `clock` is what its clock says: utc, or a time (2000-01-01T00:00:00)."""
        self.boots += 1
        monitor = self.folder / "qmp.sock"
        monitor.unlink(missing_ok=True)
        forwards = "".join(f",hostfwd=tcp:127.0.0.1:{here}-:{there}" for there, here in self.ports.items())
        command = [
            "qemu-system-aarch64", "-M", "virt,gic-version=3", "-cpu", "cortex-a53", "-smp", "2", "-m", "512",
            "-accel", "tcg,thread=multi", "-bios", UEFI, "-display", "none", "-rtc", f"base={clock}",
            "-drive", f"if=none,id=card,format=raw,file={self.card}", "-device", "virtio-blk-pci,drive=card,bootindex=0",
            "-netdev", f"user,id=net{forwards}", "-device", "virtio-net-pci,netdev=net,id=nic,romfile=",
            "-device", "qemu-xhci,id=xhci", "-qmp", f"unix:{monitor},server=on,wait=off",
            "-serial", f"file:{self.folder}/serial-{self.boots}.log",
        ]  # fmt: skip
        with (self.folder / "qemu.log").open("a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        self.qmp = None
        until("the emulator's monitor", 20, monitor.exists, 0.1)
        self.monitor = monitor

    def up(self, patience=240):
        """Waits until somebody can log in; seconds since power on are what the caller measures."""
        until(f"a login on the board (see {self.folder}/serial-{self.boots}.log)", patience, lambda: self.try_ssh("true"))
        # Each login of its own costs the emulated board a second: those that follow share this one. Where it ends they do without.
        command = ["ssh", "-M", "-N", *self.ssh_options("-p"), "root@127.0.0.1"]
        with (self.folder / "ssh.log").open("a") as log:
            self.shared = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until("the shared login", 20, lambda: self.shared_login().exists() or self.shared.poll() is not None, 0.1)

    def shared_login(self):
        return self.folder / f"ssh-{self.boots}"

    def ask(self, command, **arguments):
        """One command of the emulator's monitor (QMP)."""
        if self.qmp is None:
            link = socket.socket(socket.AF_UNIX)
            link.settimeout(30)
            link.connect(str(self.monitor))
            self.qmp = link.makefile("rwb", buffering=0)
            self.qmp.readline()
            self.ask("qmp_capabilities")
        self.qmp.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        while line := self.qmp.readline():
            answer = json.loads(line)
            if "error" in answer:
                raise Failed(f"the emulator refuses {command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
        raise Failed(f"the emulator ended at {command}")

    def plug(self, name, image, read_only=False):
        """Plugs a USB stick in."""
        node = {"driver": "raw", "node-name": name, "read-only": read_only}
        self.ask("blockdev-add", **node, file={"driver": "file", "filename": str(image), "read-only": read_only})
        self.ask("device_add", driver="usb-storage", bus="xhci.0", id=f"{name}-usb", drive=name, serial=name)

    def unplug(self, name):
        """Pulls it out."""
        self.ask("device_del", id=f"{name}-usb")
        until(f"stick {name} is let go", 30, lambda: self.let_go(name), 0.2)

    def let_go(self, name):
        try:
            self.ask("blockdev-del", **{"node-name": name})
            return True
        except Failed:
            return False

    def link(self, up):
        """Plugs the network cable in or out."""
        self.ask("set_link", name="nic", up=up)

    def kill(self):
        """Takes the power away."""
        self.process.kill()
        self.process.wait()
        if self.shared:
            self.shared.kill()
            self.shared.wait()
            self.shared = None
        if self.qmp:
            self.qmp.close()
        self.qmp = None

    def ssh_options(self, port):
        quiet = [
            "BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "ConnectTimeout=10",
            f"ControlPath={self.shared_login()}",
        ]  # fmt: skip
        return [word for option in quiet for word in ("-o", option)] + ["-i", str(self.key), port, str(self.ports[22])]

    def try_ssh(self, command, patience=20):
        run = subprocess.run(
            ["ssh", *self.ssh_options("-p"), "root@127.0.0.1", command], capture_output=True, text=True, timeout=patience
        )
        return run.returncode == 0

    def ssh(self, command, patience=120, check=True):
        """Runs a command on the board; what it printed."""
        run = subprocess.run(
            ["ssh", *self.ssh_options("-p"), "root@127.0.0.1", command], capture_output=True, text=True, timeout=patience
        )
        if check and run.returncode:
            raise Failed(f"on the board: {command}: exit {run.returncode}: {run.stdout[-2000:]}{run.stderr[-2000:]}")
        return run.stdout

    def scp(self, *files, to):
        subprocess.run(["scp", *self.ssh_options("-P"), *map(str, files), f"root@127.0.0.1:{to}"], check=True, timeout=300)


class Stick:
    """The image of a USB stick: FAT, called TIDEGATE unless said otherwise."""

    def __init__(self, path, label="TIDEGATE", mib=64):
        self.path = pathlib.Path(path)
        self.path.unlink(missing_ok=True)
        with self.path.open("wb") as file:
            file.truncate(mib << 20)
        subprocess.run(["mkfs.vfat", "-F", "32", "-n", label, self.path], check=True, stdout=subprocess.DEVNULL)

    def put(self, *files, to="::/"):
        subprocess.run(["mcopy", "-o", "-i", self.path, *map(str, files), to], check=True)

    def names(self):
        listed = subprocess.run(["mdir", "-b", "-i", self.path, "::/"], check=True, capture_output=True, text=True)
        return [line.removeprefix("::/").strip("/") for line in listed.stdout.splitlines() if line]

    def get(self, pattern, folder):
        subprocess.run(["mcopy", "-n", "-i", self.path, f"::/{pattern}", str(folder)], check=True)

    def get_all(self, folder):
        subprocess.run(["mcopy", "-s", "-n", "-i", self.path, "::/*", str(folder)], check=True)

    def put_all(self, folder):
        """The folder with all that is in it."""
        subprocess.run(["mcopy", "-s", "-o", "-i", self.path, str(folder), "::/"], check=True)

    def read(self, name):
        return subprocess.run(["mtype", "-i", self.path, f"::/{name}"], check=True, capture_output=True).stdout


def have(*programs):
    """Those of the programs that are not here."""
    return [program for program in programs if not shutil.which(program)]
