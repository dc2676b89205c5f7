"""usage.py RUN DAEMON HUB MINUTES [rest]: runs what usage.sh promises in the folder RUN, and prints its tables."""

import http.client
import json
import os
import pathlib
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time

from measure import put, settings

run, daemon, hub, minutes = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4])
HUB_PORT = 19310
tokens = [json.loads(line)["token"] for line in (run / "tokens").open()]
at_rest = sys.argv[5:] == ["rest"]
processes = []
failed = []  # what the threads met that must not be


def start(*command, log):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log.open("a"))
    processes.append(process)
    return process


def stop(process):
    process.send_signal(signal.SIGTERM)
    if process.wait(60) != 0:
        sys.exit("a daemon did not end well")


class Disk:
    """A file system of its own, as on a card of some gigabytes, whose device counts what is written to it; without root the
    process's own count."""

    def __init__(self, folder):
        self.folder, self.loop = folder, None
        folder.mkdir(parents=True)
        if os.geteuid() != 0:
            return
        image = folder.with_suffix(".ext4")
        subprocess.run(["truncate", "-s", "256M", image], check=True)
        subprocess.run(["mkfs.ext4", "-q", "-b", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0", image], check=True)
        found = subprocess.run(["losetup", "--find", "--show", image], check=True, capture_output=True, text=True)
        self.loop = found.stdout.strip()
        subprocess.run(["mount", "-o", "noatime", self.loop, folder], check=True)

    def written(self, process):
        if self.loop:
            os.sync()
            return int(pathlib.Path(f"/sys/block/{pathlib.Path(self.loop).name}/stat").read_text().split()[6]) * 512
        lines = pathlib.Path(f"/proc/{process.pid}/io").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))

    def close(self):
        if self.loop:
            subprocess.run(["umount", "--lazy", self.folder], check=False)
            subprocess.run(["losetup", "--detach", self.loop], check=False)


class Device:
    """A daemon on a disk of its own, and what asks it so often in a second."""

    def __init__(self, number, rate, with_hub):
        self.rate, self.with_hub, self.port = rate, with_hub, 19320 + number
        self.folder, self.sent, self.ending = run / f"device-{number}", 0, threading.Event()
        self.disk, self.inbox = Disk(self.folder / "disk"), self.folder / "inbox"
        self.inbox.mkdir()
        self.begin(with_hub)
        put(run / "bench.tgb", self.inbox)
        self.until(lambda status: status["policy"]["state"] == "active")

    def begin(self, with_hub):
        hub_told = f'[upload]\nhubs = ["http://127.0.0.1:{HUB_PORT}"]\n' if with_hub else ""
        config = settings(self.folder, run / "site", self.port, "disk/state", hub_told)
        self.process = start(daemon, "run", "--config", config, log=self.folder / "log")
        self.until(lambda status: True)

    def status(self):
        asked = ["curl", "--silent", "--fail", "--unix-socket", self.folder / "admin.sock", "http://localhost/status"]
        answer = subprocess.run(asked, capture_output=True)
        return json.loads(answer.stdout) if answer.returncode == 0 else None

    def until(self, what, within=120):
        end = time.monotonic() + within
        while True:
            status = self.status()
            if status and what(status):
                return status
            if time.monotonic() > end or self.process.poll() is not None:
                sys.exit(f"device {self.port}: {status}")
            time.sleep(0.1)

    def ask(self):
        """At the rate, evenly, until told to end; every answer has to be 200."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        begun = time.monotonic()
        while not self.ending.is_set():
            number = self.sent * 7919
            headers = {"Authorization": f"Bearer {tokens[number % len(tokens)]}"}
            connection.request("GET", f"/petstore/1.0/pet/{number % 10_000}", headers=headers)
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                failed.append(f"device {self.port}: {answer.status}")
                return
            self.sent += 1
            self.ending.wait(max(0, begun + self.sent / self.rate - time.monotonic()))


def burst(device, seconds):
    """As near to 10,000 a second as connections come that each wait between their requests."""
    script = run / "burst.lua"
    script.write_text("function delay() return 9 end\n" + (run / "tokens.lua").read_text())
    address = f"http://127.0.0.1:{device.port}"
    wrk = ["wrk", "-t1", "-c130", f"-d{seconds}s", "-s", script, address]
    out = subprocess.run(wrk, check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in out or "Socket errors" in out:
        sys.exit(out)
    device.sent = device.status()["spool"]["appended"]
    device.rate = device.sent / seconds


def start_hub():
    folder = run / "hub"
    folder.mkdir()
    (folder / "hub.toml").write_text(f"""
listen = "127.0.0.1:{HUB_PORT}"
database = "{folder}/usage.sqlite"
key_file = "{run}/site/keys/hub.key"
enrol = "any"
""")
    process = start(hub, "run", "--config", folder / "hub.toml", log=folder / "log")
    for _ in range(100):
        time.sleep(0.1)
        with socket.socket() as probe:
            if process.poll() is None and probe.connect_ex(("127.0.0.1", HUB_PORT)) == 0:
                return folder / "usage.sqlite"
    sys.exit(f"the hub does not listen: see {folder}/log")


def rest(seconds):
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if failed:
            sys.exit("\n".join(failed))
        time.sleep(min(1, left))


def zstd(data, level):
    return len(subprocess.run(["zstd", f"-{level}", "-c"], input=data, check=True, capture_output=True).stdout)


COLUMNS = ("at_ms time request_id api version route method status outcome application plan principal bytes_in bytes_out "
           "total_us upstream_us upstream client consumer issuer").split()


def sizes(database, device):
    """Files, requests, bytes of the files, of the same as lines of JSON, and of those under zstd, file by file and in one."""
    db = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    db.row_factory = sqlite3.Row
    files = db.execute("SELECT lower(hex(stream)), seq, requests, bytes FROM files WHERE device = ? AND requests > 0",
                       (bytes.fromhex(device),)).fetchall()
    plain = small = best = 0
    whole = b""
    for stream, seq, _, _ in files:
        query = f"SELECT {', '.join(COLUMNS)} FROM records WHERE device = ? AND stream = ? AND seq = ? ORDER BY row"
        rows = db.execute(query, (device, stream, seq))
        lines = "".join(json.dumps(dict(row), separators=(",", ":")) + "\n" for row in rows).encode()
        plain, small, best = plain + len(lines), small + zstd(lines, 3), best + zstd(lines, 19)
        whole += lines
    total = sum(file["requests"] for file in files), sum(file["bytes"] for file in files)
    return len(files), *total, plain, small, best, zstd(whole, 19)


def counted(database, device):
    db = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    return db.execute("SELECT coalesce(sum(requests), 0) FROM daily WHERE device = ?", (device,)).fetchone()[0]


# Or daemons would go on after whoever ends this, and write into the folder of the next run.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
devices = []
try:
    database = start_hub()
    rates = [0, 1, 10, 100]
    kinds = [(rate, with_hub) for with_hub in (False, True) for rate in (rates[:1] if at_rest else rates)]
    devices = [Device(number, *kind) for number, kind in enumerate(kinds)]
    threads = [threading.Thread(target=device.ask, daemon=True) for device in devices if device.rate]
    for thread in threads:
        thread.start()
    rest(660 if at_rest else 60)  # what a start writes is not counted, nor a policy's trial of ten minutes
    before = [(device.disk.written(device.process), device.sent) for device in devices]
    print(f"{minutes:g} minutes", file=sys.stderr)
    rest(minutes * 60)
    after = [(device.disk.written(device.process), device.sent) for device in devices]
    by = "block device" if devices[0].disk.loop else "process"
    print(f"| requests a second | hub | written in {minutes:g} min ({by}) | a record | a day |\n|---|---|---|---|---|")
    for device, (written_0, sent_0), (written_1, sent_1) in zip(devices, before, after):
        written, sent = written_1 - written_0, sent_1 - sent_0
        each = f"{written / sent:,.0f} bytes" if sent else ""
        reach = "in reach" if device.with_hub else "none"
        print(f"| {device.rate} | {reach} | {written / 1024:,.0f} KiB | {each} | {written / 2**20 / minutes * 1440:,.1f} MiB |",
              flush=True)
    if at_rest:
        sys.exit()
    for device in devices:
        device.ending.set()
    for thread in threads:
        thread.join()
    devices.append(Device(len(devices), 10_000, False))
    burst(devices[-1], 30)
    print("| requests a second | hub | files | records | bytes a record | JSON lines | + zstd -3 | + zstd -19 | all in one, -19 |")
    print("|---|---|---|---|---|---|---|---|---|")
    for device in devices:
        if not device.with_hub:
            stop(device.process)
            device.begin(True)
        name = device.status()["device"]
        end = time.monotonic() + 180
        while (at_hub := counted(database, name)) < device.sent and time.monotonic() < end:
            time.sleep(0.5)
        if at_hub != device.sent:
            sys.exit(f"the books do not balance: {device.sent} answered, {at_hub} at the hub; {device.status()}")
        if not device.rate:
            continue
        files, requests, size, *others = sizes(database, name)
        reach = "in reach" if device.with_hub else "none"
        cells = " | ".join(f"{one / requests:.1f}" for one in (size, *others))
        print(f"| {device.rate:.0f} | {reach} | {files} | {requests} | {cells} |", flush=True)
finally:
    for process in processes:
        process.kill()
    for device in devices:
        device.disk.close()
