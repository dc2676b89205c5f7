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

from board import Board, Failed, Stick, until
from centre import GUEST_SEES, Site
from traffic import Traffic

# What a cut of power may take at most, as docs/usage.md has it: the default sync_interval, and what comes while a sync lasts.
MOST_LOST = 10.0


class Drive:
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

    def bundle_by_stick(self):
        self.site.write_policy('"GET", "POST"')
        bundle = self.site.bundle("second")
        junk, link = self.folder / "junk.tgb", self.folder / "short.tgb"
        junk.write_bytes(random.Random(1).randbytes(4096))
        link.write_bytes(bundle.read_bytes()[: bundle.stat().st_size // 2])
        stick = Stick(self.folder / "stick.img")
        stick.put(bundle, junk, link)
        self.board.plug("one", stick.path)
        since = time.monotonic()
        until("the policy of the stick serves", 120, lambda: self.sequence() > self.first_seq, 1)
        took = time.monotonic() - since
        busy = "systemctl list-units --no-legend --state=activating 'tidegate-sideload@*'"
        until("the stick is done with", 90, lambda: not self.board.ssh(busy), 1)
        self.board.unplug("one")
        receipts = {name for name in stick.names() if name.endswith(".result.json")}
        if "second.tgb.result.json" not in receipts:
            raise Failed(f"no receipt on the stick: {stick.names()}")
        if b"Activated" not in stick.read("second.tgb.result.json"):
            raise Failed(f"the receipt says {stick.read('second.tgb.result.json')!r}")
        return f"policy {self.sequence()} in force {took:.1f} s after it was plugged in; receipts {sorted(receipts)}"

    def with_stick(self, sticks, read_only=False):
        """Plugs sticks in, all at once, waits until the board is done with each, and pulls them out."""
        ended = "journalctl --quiet -o cat -u 'tidegate-sideload@*' | grep -cE '^(Finished|Failed to start) ' || true"
        before = int(self.board.ssh(ended))
        for name, stick in sticks.items():
            self.board.plug(name, stick.path, read_only)
        until("the board is done with the sticks", 150, lambda: int(self.board.ssh(ended)) >= before + len(sticks), 1)
        for name in sticks:
            self.board.unplug(name)

    def told_on(self, stick):
        return stick.read(f"tidegate-{self.device}.txt").decode()

    def usage_by_stick(self):
        """Usage out by a stick with a signed note, into the hub, and the receipts back: no link, no hand on the keyboard."""
        self.site.stop_hub()
        with self.traffic(20):
            time.sleep(5)
        self.board.ssh("systemctl reload tidegated")

        def is_sealed():
            spool = self.admin("status")["spool"]
            return spool["open_bytes"] == 0 and spool["backlog_files"]

        files = until("the usage is sealed", 60, is_sealed, 1)
        note, key, carried = self.folder / "note.tgd", self.folder / "usage-key.tgd", self.folder / "carried"
        self.site.tidegate(
            "device", "export-usage", "--device", self.device, "--until", "2099-01-01T00:00:00Z",
            "--key", self.site.policy / "keys" / "policy.key", "--yes", "-o", note,
        )  # fmt: skip
        self.site.run("tidegate-hub", "usage-key", "--config", self.site.config, key)
        stick = Stick(self.folder / "usage.img")
        stick.put(note)
        self.with_stick({"bare": stick})
        if "NoUsageKey" not in self.told_on(stick):
            raise Failed(f"usage left without a key to seal it to: {self.told_on(stick)}")
        stick.put(key)
        self.with_stick({"out": stick})
        carried.mkdir()
        stick.get_all(carried)
        sealed = list(carried.rglob("*.tgs"))
        if len(sealed) < files or list(carried.rglob("*.tgu")):
            raise Failed(f"{files} files waited, {len(sealed)} are sealed on the stick: {self.told_on(stick)}")
        self.site.run("tidegate-hub", "import", "--config", self.site.config, carried)
        stick.put_all(carried / "receipts")
        self.with_stick({"back": stick})
        left = self.admin("status")["spool"]["backlog_files"]
        if left > 1:  # what is asked of the board meanwhile may be sealed meanwhile
            raise Failed(f"{left} files wait after the receipts came back: {self.told_on(stick)}")
        self.site.start_hub()
        return f"{len(sealed)} files out, {len(list((carried / 'receipts').rglob('*.tgr')))} receipts back; {self.balance()}"

    def hostile_sticks(self):
        """Sticks as people bring them; what each was told, by name, and nothing broken."""
        dice, told = random.Random(2), []
        before, device = self.sequence(), self.device

        junk = Stick(self.folder / "junk.img")
        folder = self.folder / "junk"
        folder.mkdir()
        for number in range(40):
            (folder / f"holiday-{number}.tgb").write_bytes(dice.randbytes(dice.choice([0, 1, 200, 70_000])))
        (folder / "note.tgd").write_bytes(b'{"body":' + dice.randbytes(500))
        junk.put(*folder.iterdir())
        self.with_stick({"junk": junk})
        lines = self.told_on(junk)
        if lines.count("holiday-") != 40 or "nothing there that this device takes" not in lines:
            raise Failed(f"of the junk it told: {lines}")
        told.append("junk: 41 refused by name")

        full = Stick(self.folder / "full.img")
        full.put(*[folder / f"holiday-{number}.tgb" for number in range(40)])
        for number in range(8):
            for other in range(40):
                full.put(folder / f"holiday-{other}.tgb", to=f"::/copy-{number}-{other}.tgb")
        self.with_stick({"full": full})
        if "TooManyCandidates" not in self.told_on(full):
            raise Failed(f"of 360 files it told: {self.told_on(full)}")
        told.append("360 files: TooManyCandidates")

        locked = Stick(self.folder / "locked.img")
        third = self.site.bundle("third")
        locked.put(third)
        names = locked.names()
        self.with_stick({"locked": locked}, read_only=True)
        self.expect("the read-only stick", locked.names(), names)
        if self.sequence() <= before:
            raise Failed("the policy of a read-only stick is not in force")
        if "third.tgb.result.json" not in self.board.ssh("ls /var/lib/tidegate/inbox"):
            raise Failed("the receipt of a read-only stick is not in the inbox")
        told.append("read-only: Activated")

        one, other = Stick(self.folder / "one.img"), Stick(self.folder / "other.img")
        one.put(self.site.bundle("fourth"))
        other.put(third, folder / "holiday-1.tgb")
        self.with_stick({"first": one, "second": other})
        ends = self.told_on(one), self.told_on(other)
        if "fourth.tgb: Activated" not in ends[0] or not any(word in ends[1] for word in ("Rollback", "AlreadyInstalled")):
            raise Failed(f"of two sticks at once it told: {ends}")
        told.append("two at once: each its own")

        before = self.sequence()
        pulled = Stick(self.folder / "pulled.img")
        pulled.put(self.site.bundle("fifth"))
        for number in range(6):
            self.board.plug("pulled", pulled.path)
            time.sleep(dice.uniform(0.5, 8))
            self.board.unplug("pulled")
        busy = "systemctl list-units --no-legend --state=activating,deactivating 'tidegate-sideload@*'"
        until("the stick is let go", 60, lambda: not self.board.ssh(busy), 1)
        parts = self.board.ssh("ls -A /var/lib/tidegate/inbox").split()
        if sum(name.endswith(".part") for name in parts) > 4 or not self.is_ready():
            raise Failed(f"after a stick was pulled out six times: {parts}")
        self.with_stick({"whole": pulled})
        if self.sequence() <= before or "fifth.tgb: " not in self.told_on(pulled):
            raise Failed(f"the stick that was pulled out is not taken: {self.told_on(pulled)}")
        told.append("pulled out 6 times, then whole: taken")
        self.last_seq = self.sequence()
        self.expect("the device", self.board.ssh("tidegate device key").strip(), device)
        self.expect("a good token", self.ask(self.good), 200)
        return "; ".join(told)

    def package_of(self, version, break_it):
        """The package once more, with another version; its daemon does not start where `break_it`."""
        folder, file = self.folder / f"deb-{version}", self.folder / f"tidegate_{version}_arm64.deb"
        subprocess.run(["dpkg-deb", "-R", self.upgrade, folder], check=True)
        control = folder / "DEBIAN" / "control"
        lines = control.read_text().splitlines(keepends=True)
        control.write_text("".join(f"Version: {version}\n" if line.startswith("Version: ") else line for line in lines))
        if break_it:
            (folder / "usr/bin/tidegated").write_text("#!/bin/sh\nexit 1\n")
        subprocess.run(["dpkg-deb", "--root-owner-group", "-Zgzip", "-b", folder, file], check=True, stdout=subprocess.DEVNULL)
        return file

    def release(self, number, version, break_it=False):
        """A signed release of the package; its file."""
        file, policy = self.folder / f"release-{number}.tgb", self.site.policy
        order = ["--seq", "1"] if number == 1 else ["--previous", self.folder / f"release-{number - 1}.tgb"]
        self.site.tidegate(
            "release", "build", "--version", version, self.package_of(version, break_it), *order, "--root", policy / "root.json",
            "--author", "board", "-o", file,
        )  # fmt: skip
        known = ["--previous", self.folder / f"release-{number - 1}.tgb"] if number > 1 else []
        self.site.tidegate(
            "bundle", "sign", file, "--key", policy / "keys" / "release.key", "--root", policy / "root.json", *known, "--yes"
        )
        return file

    def installed(self):
        return self.board.ssh("dpkg-query -W -f='${Version}' tidegate").strip()

    def ended(self):
        """How the release that was brought last ended; None while it is under way."""
        told = json.loads(self.board.ssh("cat /var/lib/tidegate-release/status.json 2>/dev/null || echo '{}'"))
        return told if told.get("result") not in (None, "Installing") else None

    def releases(self):
        """A release by stick, under traffic; and one whose daemon does not start: the version before comes back by itself."""
        good, bad = f"{self.installed()}+r1", f"{self.installed()}+r2"
        stick = Stick(self.folder / "release.img")
        stick.put(self.release(1, good))
        with self.traffic(10) as traffic:
            self.with_stick({"release": stick})
            if "release-1.tgb: HandedOver" not in self.told_on(stick):
                raise Failed(f"of the release it told: {self.told_on(stick)}")
            until("the release is installed", 300, lambda: self.ended() and self.installed() == good, 2)
            until("it serves again", 60, self.is_ready)
        self.expect("the release", self.ended()["result"], "Installed")
        if set(traffic.statuses()) != {200}:
            raise Failed(f"answers while the release was installed: {traffic.statuses()}")
        self.board.scp(self.release(2, bad, break_it=True), to="/var/lib/tidegate/inbox/.release-2.part")
        self.board.ssh("cd /var/lib/tidegate/inbox && chown tidegate:tidegate .release-2.part && mv .release-2.part release-2.tgb")
        since = time.monotonic()
        until("the release that does not start is put back", 600, lambda: (self.ended() or {}).get("seq") == 2, 2)
        took = time.monotonic() - since
        self.expect("the release that does not start", self.ended()["result"], "RolledBack")
        self.expect("the version", self.installed(), good)
        until("it serves again", 90, self.is_ready)
        self.expect("the policy", self.sequence(), self.last_seq)
        return f"{good} Installed, {sum(traffic.statuses().values())} requests, none refused; {bad} RolledBack after {took:.0f} s; {self.balance()}"

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
            time.sleep(random.Random(number).uniform(6, 14))
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

    def upgraded(self):
        before = self.board.ssh("dpkg-query -W -f='${Version}' tidegate").strip()
        self.board.scp(self.upgrade, to="/tmp/upgrade.deb")
        with self.traffic(20) as traffic:
            time.sleep(3)
            self.board.ssh("dpkg --force-confold -i /tmp/upgrade.deb", patience=400)
            until("it serves again", 60, self.is_ready)
            time.sleep(3)
        after = self.board.ssh("dpkg-query -W -f='${Version}' tidegate").strip()
        seen = traffic.statuses()
        if set(seen) != {200}:
            raise Failed(f"answers while it was upgraded: {seen}")
        self.expect("the policy", self.sequence(), self.last_seq)
        return f"{before} to {after}: {seen[200]} requests, none refused; {self.balance()}"

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
