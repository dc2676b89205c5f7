"""versions.py: the steps of drive.py that bring another version of the package: by dpkg, and as a signed release."""

import json
import subprocess
import time

from board import Failed, Stick, until


class Versions:
    """Of a Drive: its board, its site and its books."""

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
