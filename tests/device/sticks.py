"""sticks.py: the steps of drive.py with USB sticks: bundles in, usage out, and sticks as people bring them."""

import random
import time

from board import Failed, Stick, until


class Sticks:
    """Of a Drive: its board, its site and its books."""

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
