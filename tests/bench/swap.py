"""swap.py RUN PID TIMES ADDRESS: puts the bundles of the folder RUN into the inbox, one after the other, while wrk keeps
asking; prints what swap.sh promises."""

import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import time

run, pid, times, address = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]


def highest():
    """The most memory that the daemon ever had, in kB."""
    return int(re.search(r"VmHWM:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1])


def resident():
    return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1])


def bring(name):
    """Milliseconds from the bundle's rename to its result beside it."""
    part, path, result = (run / "inbox" / file for file in (f".{name}", f"{name}.tgb", f"{name}.tgb.result.json"))
    shutil.copy(run / f"{name}.tgb", part)
    begun = time.perf_counter()
    os.rename(part, path)
    while not result.exists():
        time.sleep(0.001)
    taken = (time.perf_counter() - begun) * 1000
    said = json.loads(result.read_text())["body"]["result"]
    if said != "Activated":
        sys.exit(f"{name}: {said}")
    return taken


def load(seconds):
    header = f"Authorization: Bearer {(run / 'token').read_text().strip()}"
    return subprocess.Popen(
        # One connection, or the client fills the second core and what it measures is that it waits for itself.
        ["taskset", "-c", "1", "wrk", "-t1", "-c1", f"-d{seconds}s", "-H", header, f"http://{address}/api-0/ping"],
        stdout=subprocess.PIPE, text=True)


def longest(client):
    out = client.communicate()[0]
    if "Non-2xx" in out or "Socket errors" in out:
        sys.exit(out)
    mean, _, most = re.search(r"Latency\s+(\S+)\s+(\S+)\s+(\S+)", out).groups()
    return mean, most, re.search(r"(\d+) requests in", out)[1]


time.sleep(0.5)
bring("small")
before = highest()
length = 3 * times + 2
calm = longest(load(length))
client = load(length)
time.sleep(1)
taken = []
for number in range(times):
    taken.append(bring(f"large-{number + 1}"))
    time.sleep(1.5)
busy = longest(client)
size = (run / "large-1.tgb").stat().st_size
print(f"| {times} swaps of a bundle of {size / 1e6:.2f} MB, 10,000 routes, 100,000 subscriptions | measured | to reach |")
print("|---|---|---|")
print(f"| from the rename to in force, median | {statistics.median(taken):.0f} ms ({min(taken):.0f} to {max(taken):.0f}) | 1,500 ms |")
print(f"| most memory of the daemon | {highest() / 1024:.1f} MB ({before / 1024:.1f} before) | 64 MB |")
print(f"| resident after | {resident() / 1024:.1f} MB | |")
print(f"| a request, with nothing else to do | mean {calm[0]}, longest {calm[1]} of {calm[2]} | |")
print(f"| a request, through all swaps | mean {busy[0]}, longest {busy[1]} of {busy[2]}; none refused | 10 ms |")
