"""drive.py: takes an emulated board through what a device meets in the field, and prints a table of steps and times.

usage: drive.py --image IMAGE --key FILE --programs DIR [--deb DEB] [--upgrade DEB] [--quick] FOLDER

IMAGE is what cross/image.sh makes of a package; DIR has `tidegate` and `tidegate-hub` for this machine; --deb is the package
of the image, --upgrade one with a higher version; KEY is the ssh key that the image lets in. FOLDER keeps the board's card, serial lines and logs. Exit: 0 every step held, 1 one did not."""

import argparse
import json
import pathlib
import random
import shutil
import subprocess
import sys
import time

from board import Board, Failed, until
from centre import GUEST_SEES, Site
from sticks import Sticks
from traffic import Traffic
from versions import Versions

# What a cut of power may take at most, as docs/usage.md has it: the default sync_interval, and what comes while a sync lasts.
MOST_LOST = 10.0


class Drive(Sticks, Versions):
    def __init__(self, arguments):
        self.quick, self.cuts = arguments.quick, arguments.cuts
        self.folder = arguments.folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.table, self.begun, self.upgrade = [], time.monotonic(), arguments.upgrade
        self.deb = arguments.deb
        # Answered requests that power cuts took, each told by a gap.
        self.excused = 0

        self.key = arguments.key.resolve()
        self.site = Site(self.folder / "site", arguments.programs)
        self.board = Board(self.folder / "board", arguments.image, self.key, [8080])
        self.good = self.site.token("--scope", "ping", "--ttl", "1d")
        self.narrow = self.site.token("--scope", "other", "--ttl", "1d")
        hour_ago = int(time.time()) - 7200
        self.expired = self.site.token("--scope", "ping", "--ttl", "1h", "--now", hour_ago)
        # All that was asked over all steps, so that the books can be balanced at any moment.
        self.past = []

    # ---- the frame

    def step(self, name, do, *arguments):
        since = time.monotonic()
        print(f"device: {name} …", flush=True)
        try:
            told = do(*arguments) or ""
        except Failed as failed:
            self.table.append((name, time.monotonic() - since, f"FAILED: {failed}"))
            raise
        self.table.append((name, time.monotonic() - since, told))
        print(f"device:   {time.monotonic() - since:.0f} s  {told}", flush=True)

    def print_table(self):
        width = max(len(name) for name, _, _ in self.table)
        print(f"\n{'step':{width}} | seconds | what was seen")
        for name, seconds, told in self.table:
            print(f"{name:{width}} | {seconds:7.1f} | {told}")
        print(f"{'in all':{width}} | {time.monotonic() - self.begun:7.1f} |")

    # ---- asking the board

    def admin(self, path):
        return json.loads(self.board.ssh(f"curl -s --max-time 20 --unix-socket /run/tidegate/admin.sock http://tidegate/{path}"))

    def is_ready(self):
        return self.board.try_ssh("curl -sf --max-time 20 --unix-socket /run/tidegate/admin.sock http://tidegate/readyz")

    def traffic(self, rate=20, tokens=None):
        one = Traffic(self.board.ports[8080], "/board/ping", tokens or [self.good], rate)
        self.past.append(one)
        return one

    def ask(self, token, path="/board/ping"):
        """One request by itself; it is in the books like all others."""
        one = Traffic(self.board.ports[8080], path, [token], 1)
        sent = time.time()
        status = one.ask(token)
        one.asked.append((sent, time.time(), status))
        self.past.append(one)
        return status

    def expect(self, what, got, *wanted):
        if got not in wanted:
            raise Failed(f"{what}: {got}, and not {' or '.join(map(str, wanted))}")

    def sequence(self):
        return self.admin("status")["policy"]["seq"]

    def settle(self):
        """Has the board seal and send what it has; returns what the hub has counted once the board has nothing left."""
        answered = sum(one.answered() for one in self.past)
        self.board.ssh("systemctl reload tidegated")

        def is_done():
            if self.site.counted() >= answered:
                return True
            spool = self.admin("status")["spool"]
            return spool["backlog_files"] == 0 and spool["open_bytes"] == 0

        until("the board has sent what it has", 120, is_done, 1)
        return self.site.counted()

    def balance(self):
        """Each answered request is counted once, but those that a cut of power took and a gap tells; one that was sent and not
        answered may be counted."""
        counted = self.settle()
        answered = sum(one.answered() for one in self.past)
        asked = sum(len(one.asked) for one in self.past)
        if not answered - self.excused <= counted <= asked:
            raise Failed(f"{counted} counted of {answered} answered ({self.excused} excused) and {asked} sent")
        return f"{counted} counted, {answered} answered, {asked} sent"

    # ---- the steps

    def boot(self, clock="utc"):
        self.board.start(clock)
        self.board.up()

    def first_boot(self):
        self.boot()
        until("the data partition is grown", 60, lambda: self.board.try_ssh("systemctl is-active -q tidegate-grow"))
        size = int(self.board.ssh("df --output=size -B1M /media/data | tail -n 1"))
        if size < 2500:
            raise Failed(f"the data partition has {size} MiB of a card of 4096")
        if "ro" not in self.board.ssh("findmnt -n -o OPTIONS /media/system").split(",")[0]:
            raise Failed("the system is not read-only")
        failed = self.board.ssh("systemctl --failed --no-legend --plain")
        if failed:
            raise Failed(f"units have failed: {failed}")
        self.device = self.board.ssh("tidegate device key").strip()
        until("its screen shows the id", 5, lambda: self.device in self.board.ssh("cat /etc/issue.d/tidegate.issue"))
        return f"device {self.device}, data partition {size} MiB"

    def installed_by_scp(self):
        """The card has it already, so it goes first; settings and state stay with a removal."""
        self.board.scp(self.deb, to="/tmp/tidegate.deb")
        self.board.ssh("dpkg --remove tidegate", patience=240)
        if self.board.try_ssh("command -v tidegated"):
            raise Failed("the removed package left its daemon")
        self.board.ssh("dpkg --install /tmp/tidegate.deb && rm /tmp/tidegate.deb", patience=400)
        self.expect("the device", self.board.ssh("tidegate device key").strip(), self.device)
        for unit in ("tidegated.socket", "tidegated.service", "tidegate-release.path"):
            self.expect(unit, self.board.ssh(f"systemctl is-enabled {unit}").strip(), "enabled")
        return f"{self.installed()}, enabled"

    def provision(self):
        site = self.folder / "site.toml"
        site.write_text(
            f'[upload]\nhubs = ["http://{GUEST_SEES}:{self.site.hub_port}"]\nallow_plain_http = true\n\n[time]\ntrust = ["rtc"]\n\n'
            # A policy on trial that goes down three times is taken back, and it is killed here.
            '[trust]\ntrial = "5s"\n'
        )
        request = self.board.ssh("tidegate device request -o /tmp/board.request.tgd")
        public = next(line.split()[-1] for line in request.splitlines() if line.startswith("public key"))
        self.site.run("tidegate-hub", "device", "add", "--config", self.site.config, "board", public)
        self.site.start_hub()
        self.board.scp(self.site.policy / "root.json", to="/etc/tidegate/root.json")
        self.board.scp(site, to="/etc/tidegate/tidegated.d/site.toml")
        self.board.ssh("chmod 0644 /etc/tidegate/root.json /etc/tidegate/tidegated.d/site.toml")
        self.board.ssh("systemctl start tidegated.socket tidegated")
        state = self.admin("status")["policy"]["state"]
        return f"policy: {state}"

    def push(self):
        bundle = self.site.bundle("first")
        # `tidegate push` is the system's ssh: this machine's settings are what names host, port and key.
        config = self.folder / "ssh_config"
        config.write_text(
            f"Host board\n  HostName 127.0.0.1\n  Port {self.board.ports[22]}\n  User root\n  IdentityFile {self.key}\n"
            "  BatchMode yes\n  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n  LogLevel ERROR\n"
        )
        ssh = self.folder / "bin"
        ssh.mkdir(exist_ok=True)
        for program in ("ssh", "scp"):
            (ssh / program).write_text(f'#!/bin/sh\nexec {shutil.which(program)} -F {config} "$@"\n')
            (ssh / program).chmod(0o755)
        run = subprocess.run(
            [self.site.programs / "tidegate", "push", "board", bundle], capture_output=True, text=True, timeout=200,
            env={"PATH": f"{ssh}:/usr/bin:/bin"},
        )  # fmt: skip
        if run.returncode:
            raise Failed(f"tidegate push: exit {run.returncode}: {run.stdout}{run.stderr}")
        until("the policy serves", 60, self.is_ready)
        self.first_seq = self.sequence()
        return f"policy {self.first_seq} in force"

    def tokens(self):
        self.expect("a good token", self.ask(self.good), 200)
        self.expect("one of another scope", self.ask(self.narrow), 403)
        self.expect("an expired one", self.ask(self.expired), 401)
        self.expect("garbage", self.ask("e30.e30.e30"), 401)
        self.expect("no such route", self.ask(self.good, "/board/none"), 404)
        with self.traffic(20, [self.good, self.narrow, self.good, self.good]) as traffic:
            time.sleep(10)
        seen = traffic.statuses()
        if set(seen) != {200, 403}:
            raise Failed(f"answers: {seen}")
        return f"answers {seen}; {self.balance()}"

    def killed_daemon(self):
        before = self.site.gaps()
        with self.traffic(30) as traffic:
            time.sleep(5)
            for _ in range(1 if self.quick else 3):
                self.board.ssh("systemctl kill --signal=KILL --kill-whom=main tidegated")
                time.sleep(6)
            until("it serves again", 60, self.is_ready)
            time.sleep(3)
        books = self.balance()
        self.expect("the policy", self.sequence(), self.last_seq)
        if self.site.gaps() != before:
            raise Failed(f"a kill lost nothing, and gaps were told: {before} before, {self.site.gaps()} now")
        return f"answers {traffic.statuses()}; {books}; no gap"

    def hard_kill(self, number):
        """Takes the power away under traffic. What was answered more than the interval before it is counted."""
        lost_before, unknown_before = self.site.gaps()
        counted_before, answered_before = self.site.counted(), sum(one.answered() for one in self.past)
        with self.traffic(20) as traffic:
            time.sleep(random.Random(number).uniform(5, 11))
            cut = time.time()
            self.board.kill()
        self.boot()
        until("it serves again", 90, self.is_ready)
        self.expect("the policy after it", self.sequence(), self.last_seq)
        self.expect("a good token", self.ask(self.good), 200)
        self.settle()
        counted = self.site.counted()
        lost, unknown = self.site.gaps()
        answered = sum(one.answered() for one in self.past)
        asked = sum(len(one.asked) for one in self.past)
        # What an earlier cut took stays missing: the books go on from where they stood.
        missing = (answered - answered_before) - (counted - counted_before)
        late = traffic.answered() - traffic.answered(before=cut - MOST_LOST)
        if missing > late or counted > asked:
            raise Failed(f"{missing} answered requests are missing, {late} were answered in the last {MOST_LOST:.0f} s before the cut")
        if missing > 0 and unknown == unknown_before:
            raise Failed(f"{missing} answered requests are missing, and no gap says so")
        self.excused += max(0, missing)
        return f"{traffic.answered()} answered, {max(0, missing)} lost in a gap that says so ({unknown - unknown_before} told)"

    def no_clock(self):
        self.board.ssh("systemctl reload tidegated; sync")
        self.board.kill()
        self.boot("1970-01-01T00:00:00")
        until("it serves", 120, self.is_ready)
        booted = self.year()
        self.judges_by_time()
        # systemd sets the clock forward at boot, to when it last ran; a board without it does not.
        self.board.ssh("systemctl stop systemd-timesyncd; date --set=@90", check=False)
        self.expect("the year", self.year(), 1970)
        self.judges_by_time()
        self.board.ssh("systemctl restart tidegated")
        until("it serves", 120, self.is_ready)
        self.expect("the year", self.year(), 1970)
        self.judges_by_time()
        self.board.kill()
        self.boot()
        until("it serves", 120, self.is_ready)
        return f"the board's clock said {booted} after its boot; set to 1970 under the daemon, and at its start: the same answers"

    def year(self):
        return int(self.board.ssh("date +%Y"))

    def judges_by_time(self):
        self.expect("the policy", self.sequence(), self.last_seq)
        self.expect("a good token", self.ask(self.good), 200)
        self.expect("an expired one", self.ask(self.expired), 401)

    def cut_link(self):
        self.site.stop_hub()
        with self.traffic(20) as traffic:
            time.sleep(8)
        self.board.ssh("systemctl reload tidegated")
        self.site.start_hub()
        self.board.link(False)
        time.sleep(5)
        self.board.link(True)
        since = time.monotonic()
        answered = sum(one.answered() for one in self.past) - self.excused
        until("usage is at the hub after the link came back", 120, lambda: self.site.counted() >= answered, 1)
        return f"{traffic.answered()} requests without a hub; all there {time.monotonic() - since:.0f} s after the link was back"

    def reload(self):
        pid = self.board.ssh("systemctl show -P MainPID tidegated").strip()
        self.board.ssh("systemctl reload tidegated")
        self.expect("the process", self.board.ssh("systemctl show -P MainPID tidegated").strip(), pid)
        self.board.ssh("echo nonsense > /etc/tidegate/tidegated.d/zz.toml")
        refused = not self.board.try_ssh("systemctl reload tidegated", 60)
        self.board.ssh("rm /etc/tidegate/tidegated.d/zz.toml")
        self.expect("a reload with settings that are wrong is refused", refused, True)
        self.expect("a good token all the same", self.ask(self.good), 200)

    def go(self):
        self.step("first boot: UEFI, read-only root, card grown, key made", self.first_boot)
        if self.deb:
            self.step("the package removed, and the .deb by SCP", self.installed_by_scp)
        self.step("provision: root, settings, enrolled at the hub", self.provision)
        self.step("bundle by tidegate push", self.push)
        self.step("good and bad tokens", self.tokens)
        self.step("bundle by USB stick, beside junk", self.bundle_by_stick)
        self.last_seq = self.sequence()
        self.step("usage out by USB stick, receipts back", self.usage_by_stick)
        if not self.quick:
            self.step("sticks of junk, read-only, two at once, pulled out", self.hostile_sticks)
        self.step("kill -9 of the daemon under traffic", self.killed_daemon)
        if not self.quick:
            self.step("reload", self.reload)
            self.step("hub away, then link cut and restored", self.cut_link)
            if self.upgrade:
                self.step("upgrade under load", self.upgraded)
                self.step("a release by stick; one that does not start", self.releases)
        for number in range(1 if self.quick else self.cuts):
            self.step(f"power cut {number + 1} under traffic", self.hard_kill, number)
        if not self.quick:
            self.step("a clock of 1970", self.no_clock)


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--image", type=pathlib.Path, required=True)
    parser.add_argument("--programs", type=pathlib.Path, required=True)
    parser.add_argument("--deb", type=pathlib.Path)
    parser.add_argument("--key", type=pathlib.Path, required=True)
    parser.add_argument("--upgrade", type=pathlib.Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--cuts", type=int, default=10, help="how often the power is cut (10)")
    parser.add_argument("folder", type=pathlib.Path)
    drive, failed = None, True
    try:
        drive = Drive(parser.parse_args())
        drive.go()
        failed = False
    except (Failed, subprocess.CalledProcessError) as error:
        print(f"device: FAILED: {error}", file=sys.stderr)
        if drive and drive.board.process and drive.board.process.poll() is None:
            try:
                print(drive.board.ssh("journalctl -b --no-pager -n 60; systemctl --failed --no-legend", check=False), file=sys.stderr)
            except (subprocess.SubprocessError, OSError) as gone:
                print(f"device: its journal cannot be read: {gone}", file=sys.stderr)
    finally:
        if drive:
            if drive.board.process:
                drive.board.kill()
            if drive.site.hub:
                drive.site.hub.kill()
            if drive.table:
                drive.print_table()
    sys.exit(1 if failed else 0)


main()
