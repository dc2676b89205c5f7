"""The desk and the centre of a test on a board, on this machine: policy, keys, tokens, a hub, and what the gateway stands before."""

import http.server
import json
import signal
import subprocess
import threading

from board import Failed, free_port

ISSUER, AUDIENCE = "https://tokens.example.com", "edge"
GUEST_SEES = "10.0.2.2"


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """A board that is switched off under traffic resets its connections: that is the test."""


class Upstream(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"pong")

    def log_message(self, *_):
        pass


class Site:
    """The desk and the centre, on this machine: policy, keys, tokens, a hub, and what the gateway stands before."""

    def __init__(self, folder, programs):
        self.folder, self.programs = folder, programs
        folder.mkdir(parents=True)
        self.upstream = Server(("127.0.0.1", 0), Upstream)
        threading.Thread(target=self.upstream.serve_forever, daemon=True).start()
        self.hub_port, self.hub = free_port(), None
        self.policy = folder / "policy"
        self.tidegate("init", self.policy, "--deployment", "board", "--no-passphrase")
        self.write_policy()
        self.config = folder / "hub.toml"
        self.config.write_text(
            f'listen = "127.0.0.1:{self.hub_port}"\ndatabase = "{folder}/usage.sqlite"\n'
            f'key_file = "{self.policy}/keys/hub.key"\nroot = "{self.policy}/root.json"\n'
        )

    def run(self, program, *arguments):
        run = subprocess.run([self.programs / program, *map(str, arguments)], capture_output=True, text=True, timeout=300)
        if run.returncode:
            raise Failed(f"{program} {' '.join(map(str, arguments))}: exit {run.returncode}: {run.stdout}{run.stderr}")
        return run.stdout

    def tidegate(self, *arguments):
        return self.run("tidegate", *arguments)

    def write_policy(self, methods='"GET"'):
        (self.policy / "apis" / "board.toml").write_text(
            'name = "board"\nversion = "1"\nbase_path = "/board"\nupstream = "site"\nissuers = ["site"]\nsubscription = false\n\n'
            f'[[routes]]\npath = "/ping"\nmethods = [{methods}]\nscopes = ["ping"]\n\n'
            f'[upstreams.site]\nendpoints = ["http://{GUEST_SEES}:{self.upstream.server_port}"]\n'
        )

    def bundle(self, name):
        """A new signed policy; its file, and the digest by which the device names it."""
        file = self.folder / f"{name}.tgb"
        self.tidegate("bundle", "build", self.policy, "-o", file)
        self.tidegate("bundle", "sign", file, "--key", self.policy / "keys" / "policy.key", "--yes")
        return file

    def token(self, *options):
        return self.tidegate(
            "token", "mint", "--key", self.policy / "keys" / "issuer.pem", "--iss", ISSUER, "--aud", AUDIENCE,
            "--sub", "board", "--client", "board", *options,
        ).strip()  # fmt: skip

    def start_hub(self):
        with (self.folder / "hub.log").open("a") as log:
            self.hub = subprocess.Popen([self.programs / "tidegate-hub", "run", "--config", self.config], stdout=log, stderr=log)

    def stop_hub(self):
        self.hub.send_signal(signal.SIGTERM)
        if self.hub.wait(60):
            raise Failed("the hub did not end well: see hub.log")

    def report(self, *what):
        lines = self.run("tidegate-hub", "report", *what, "--config", self.config, "--format", "json").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def counted(self):
        """How many requests the hub has counted."""
        return sum(line["requests"] for line in self.report())

    def gaps(self):
        """Gaps that the hub knows: how many records they say are lost, and in how many intervals nobody can know."""
        rows = self.report("gaps")
        return sum(row["lost"] for row in rows), sum(row["unknown"] for row in rows)
