"""What run.sh measures beside the rates; each command prints a line of numbers, and `tables` makes the tables of them.

  activate DAEMON CONFIG TOKEN ADDRESS BUNDLE INBOX   starts the daemon, moves the bundle in, waits until it serves, stops it
  start N DAEMON CONFIG TOKEN ADDRESS     N starts: milliseconds from exec to the last byte of the first 200
  idle PID TOKEN ADDRESS                  waits until it serves; after 5 s of rest, its resident memory as below
  memory PID SAMPLES                      resident memory in kB of PID and its children: the last, the highest, the
                                          highest of a child; SAMPLES of 0 is until PID ends
  settings FOLDER SITE PORT               writes FOLDER/tidegated.toml, of a daemon at PORT with its state in FOLDER
  counts RUN PORT COMMAND...              instructions and allocations a request, by callgrind
  tables RUN DAEMON                       the tables, from the files in the folder RUN
"""

import os
import pathlib
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time


def head(number, token):
    return (f"GET /petstore/1.0/pet/{number} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n\r\n").encode()


def ask(address, request):
    """One request on a connection of its own; its status, or None where nobody answers yet."""
    try:
        with socket.create_connection(address, timeout=5) as connection:
            connection.sendall(request)
            answer = b""
            while b"\r\n\r\n" not in answer:
                part = connection.recv(65536)
                if not part:
                    return None
                answer += part
            return int(answer.split(None, 2)[1])
    except OSError:
        return None


def until_served(address, request, process=None, within=60.0):
    end = time.monotonic() + within
    while ask(address, request) != 200:
        if time.monotonic() > end or (process and process.poll() is not None):
            sys.exit("the server does not serve")
        time.sleep(0.0005)


def settings(folder, site, port, state="state", more=""):
    """The daemon's settings; their file."""
    file = pathlib.Path(folder) / "tidegated.toml"
    file.write_text(f"""
state = "{folder}/{state}"
inbox = "{folder}/inbox"
[trust]
root = "{site}/root.json"
[time]
trust = ["rtc"]
[gateway]
workers = 1
[[gateway.listeners]]
address = "127.0.0.1:{port}"
[admin]
socket = "{folder}/admin.sock"
{more}""")
    return file


def put(bundle, inbox):
    """Into the inbox, whole from one moment to the next."""
    part = pathlib.Path(inbox) / ".bench"
    shutil.copy(bundle, part)
    part.rename(pathlib.Path(inbox) / "bench.tgb")


def daemon(path, config):
    return subprocess.Popen([path, "run", "--config", config], stderr=subprocess.DEVNULL)


def stop(process):
    process.send_signal(signal.SIGTERM)
    if process.wait(60) != 0:
        sys.exit("the daemon did not end well")


def start(times, path, config, token, address):
    request, taken = head(1, pathlib.Path(token).read_text().strip()), []
    for _ in range(times):
        before = time.perf_counter()
        process = daemon(path, config)
        until_served(address, request, process)
        taken.append((time.perf_counter() - before) * 1000)
        stop(process)
    return f"{statistics.median(taken):.1f} {min(taken):.1f} {max(taken):.1f}"


def resident(pid):
    """Of the process and of its children, each in kB."""
    children = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            children += pathlib.Path(f"/proc/{pid}/task/{task}/children").read_text().split()
    except OSError:
        pass

    def of(pid):
        try:
            status = pathlib.Path(f"/proc/{pid}/status").read_text()
            found = re.search(r"VmRSS:\s+(\d+)", status)
            return int(found[1]) if found else 0
        except OSError:
            return 0

    return of(pid), sum(of(child) for child in children)


def memory(pid, samples):
    last = highest = child_highest = 0
    while True:
        own, children = resident(pid)
        if own == 0:
            break
        last, child_highest = own + children, max(child_highest, children)
        highest = max(highest, last)
        samples -= 1
        if samples == 0:
            break
        time.sleep(0.02)
    return f"{last} {highest} {child_highest}"


def counts(run, port, command):
    """By callgrind: a warm-up with every token, then 4,000 requests on 32 connections between two dumps."""
    out = f"{run}/callgrind.{port}"
    for old in pathlib.Path(run).glob(f"callgrind.{port}*"):
        old.unlink()
    tool = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", "-q"]
    process = subprocess.Popen(tool + command, stderr=subprocess.DEVNULL)
    tokens = re.findall(r'^ *"(.*)",$', pathlib.Path(f"{run}/tokens.lua").read_text(), re.M)
    address = ("127.0.0.1", int(port))
    until_served(address, head(1, tokens[0]), process)
    connections = [socket.create_connection(address) for _ in range(32)]

    def batch(requests):
        for first in range(0, requests, len(connections)):
            for at, connection in enumerate(connections):
                connection.sendall(head(first + at, tokens[(first + at) % len(tokens)]))
            for connection in connections:
                answer = connection.recv(65536)
                while b"available" not in answer:
                    answer += connection.recv(65536)

    batch(1_024)
    control = ["callgrind_control", str(process.pid)]
    subprocess.run(control + ["-z"], check=True, capture_output=True)
    batch(4_000)
    subprocess.run(control + ["-d"], check=True, capture_output=True)
    process.kill()
    process.wait()
    dump = pathlib.Path(f"{out}.1").read_text()
    instructions = sum(int(line.split()[1]) for line in dump.splitlines() if line.startswith("totals:"))
    allocations, callee, names = 0, "", {}
    for line in dump.splitlines():
        called = re.match(r"cfn=\((\d+)\)(?: (.*))?", line)
        if called:
            names.setdefault(called[1], called[2])
            callee = names[called[1]]
        elif (defined := re.match(r"fn=\((\d+)\) (.*)", line)):
            names.setdefault(defined[1], defined[2])
        elif line.startswith("calls=") and callee in ("malloc", "calloc", "realloc", "posix_memalign"):
            allocations += int(line[6:].split()[0])
    return f"{instructions / 4_000:.0f} {allocations / 4_000:.2f}"


def tables(run, path):
    def rates(name):
        """Of each round: requests a second, and CPU in ns a request, over all its turns."""
        sums = {}
        for line in pathlib.Path(f"{run}/{name}.turns").read_text().splitlines():
            turn, *amounts = [int(word) for word in line.split()]
            sums[turn] = [one + more for one, more in zip(sums.get(turn, (0, 0, 0)), amounts)]
        return [n / us * 1e6 for n, us, _ in sums.values()], [cpu / n for n, _, cpu in sums.values()]

    def numbers(name):
        file = pathlib.Path(f"{run}/{name}")
        return [float(word) for word in file.read_text().split()] if file.exists() else None

    bare, _ = rates("bare")
    counted = {"bare": numbers("counts.bare"), "gateway": numbers("counts.gateway")}
    print(f"| median of {len(bare)} rounds | requests/s | of bare, by round | CPU a request | instructions | allocations |")
    print("|---|---|---|---|---|---|")
    for name, title in [("bare", "bare hyper forwarder"), ("gateway", "Tidegate, all stages"), ("nginx", "nginx, log and limit_req")]:
        rate, cpu = rates(name)
        ratios = sorted(one / other for one, other in zip(rate, bare))
        ratio = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        ins, alloc = counted.get(name) or (None, None)
        shown = (f"{ins:,.0f}", f"{alloc:.1f}") if ins else ("", "")
        print(f"| {title} | {statistics.median(rate):,.0f} | {ratio} | {statistics.median(cpu) / 1000:.1f} µs | {shown[0]} | {shown[1]} |")
    idle, load, first, again = numbers("idle"), numbers("load"), numbers("start"), numbers("start.loaded")
    bundle = os.stat(f"{run}/bench.tgb").st_size
    print()
    print("| the daemon | measured | to reach |")
    print("|---|---|---|")
    print(f"| resident, idle, with its policy | {idle[0] / 1024:.1f} MB | 8 MB |")
    print(f"| resident under that load, child included, highest | {load[1] / 1024:.1f} MB (child {load[2] / 1024:.1f}) | 16 MB |")
    print(f"| stripped size | {os.stat(path).st_size / 1e6:.2f} MB | 5 MB |")
    print(f"| start to first answered request, bundle of {bundle / 1024:.0f} KiB | {first[0]:.0f} ms ({first[1]:.0f} to {first[2]:.0f}) | 50 ms |")
    print(f"| the same with the load's usage in the spool | {again[0]:.0f} ms ({again[1]:.0f} to {again[2]:.0f}) | 50 ms |")


def main():
    what, *rest = sys.argv[1:]
    at = lambda text: (text.rsplit(":", 1)[0], int(text.rsplit(":", 1)[1]))
    if what == "activate":
        path, config, token, address, bundle, inbox = rest
        process = daemon(path, config)
        while ask(at(address), head(1, "")) is None:
            time.sleep(0.01)
        put(bundle, inbox)
        until_served(at(address), head(1, pathlib.Path(token).read_text().strip()), process)
        stop(process)
    elif what == "start":
        times, path, config, token, address = rest
        print(start(int(times), path, config, token, at(address)))
    elif what == "idle":
        pid, token, address = rest
        until_served(at(address), head(1, pathlib.Path(token).read_text().strip()))
        time.sleep(5)
        print(memory(int(pid), 1))
    elif what == "memory":
        print(memory(int(rest[0]), int(rest[1])))
    elif what == "settings":
        print(settings(*rest))
    elif what == "counts":
        print(counts(rest[0], rest[1], rest[2:]))
    elif what == "tables":
        tables(*rest)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
