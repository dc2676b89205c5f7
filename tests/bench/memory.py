"""memory.py RUN NAME=DAEMON...: measures what memory.sh says, in the folder RUN, and prints its table."""

import json
import os
import pathlib
import re
import subprocess
import sys
import time

from measure import ask, head, put, resident, settings, until_served

run, builds = pathlib.Path(sys.argv[1]), [one.split("=", 1) for one in sys.argv[2:]]
ADDRESS = ("127.0.0.1", 19402)
tokens = [json.loads(line)["token"] for line in (run / "tokens").open()]
# musl has an allocator without settings.
ALLOCATORS = [
    ("its defaults", {}),
    ("one arena (as the unit ships)", {"MALLOC_ARENA_MAX": "1"}),
    ("one arena, mmap and trim from 64 KiB", {"MALLOC_ARENA_MAX": "1", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_MMAP_THRESHOLD_": "65536"}),
]


def parts(pid):
    """Resident memory of the process in kB: all, anonymous, pages of files."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return [int(re.search(rf"{name}:\s+(\d+)", status)[1]) for name in ("VmRSS", "RssAnon", "RssFile")]


def load():
    wrk = ["taskset", "-c", "1", "wrk", "-t1", "-c32", "-d10s", "-s", run / "tokens.lua", f"http://{ADDRESS[0]}:{ADDRESS[1]}"]
    return subprocess.Popen(wrk, stdout=subprocess.PIPE, text=True)


def measured(name, daemon, environment):
    folder = run / name.replace(" ", "-")
    inbox = folder / "inbox"
    inbox.mkdir(parents=True)
    config = settings(folder, run / "site", ADDRESS[1])
    bare = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")}

    def start():
        command = ["taskset", "-c", "0", daemon, "run", "--config", config]
        return subprocess.Popen(command, env=bare | environment, stderr=(folder / "log").open("a"))

    def stop(process):
        process.terminate()
        if process.wait(60) != 0:
            sys.exit(f"{name}: the daemon did not end well: see {folder}/log")

    process = start()
    while ask(ADDRESS, head(1, "")) is None:
        time.sleep(0.01)
    put(run / "bench.tgb", inbox)
    until_served(ADDRESS, head(1, tokens[0]), process)
    stop(process)

    process = start()
    until_served(ADDRESS, head(1, tokens[0]), process)
    time.sleep(5)
    idle = parts(process.pid)
    wrk, highest, own, child = load(), 0, [0, 0, 0], 0
    while wrk.poll() is None:
        mine, children = resident(process.pid)
        highest, child = max(highest, mine + children), max(child, children)
        own = max(own, parts(process.pid))
        time.sleep(0.02)
    told = wrk.stdout.read()
    if "Non-2xx" in told or "Socket errors" in told:
        sys.exit(f"{name}: {told}")
    end = time.monotonic() + 60
    while resident(process.pid)[1] and time.monotonic() < end:
        time.sleep(0.2)
    time.sleep(2)
    rest = parts(process.pid)
    stop(process)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", told)[1]
    mb = lambda kb: f"{kb / 1024:.1f}"
    print(f"| {name} | {mb(idle[0])} ({mb(idle[1])} + {mb(idle[2])}) | {mb(highest)} | {mb(own[0])} ({mb(own[1])} + {mb(own[2])}) "
          f"| {mb(child)} | {mb(rest[0])} | {float(rate):,.0f} |", flush=True)


print("| build, allocator | idle (anonymous + files) | load, all, highest | the daemon's own | its child | at rest again | requests/s |")
print("|---|---|---|---|---|---|---|")
for build, daemon in builds:
    for allocator, environment in ALLOCATORS if build == "glibc" else ALLOCATORS[:1]:
        measured(f"{build}, {allocator}", daemon, environment)
