"""Callers of the gateway, and what each of them was answered."""

import http.client
import threading
import time


class Traffic:
    """So many requests a second, each on a connection of its own, from a few threads, until it is stopped."""

    def __init__(self, port, path, tokens, rate, threads=4):
        self.port, self.path, self.tokens, self.pause = port, path, tokens, threads / rate
        # Of each request: when it was sent, when the answer came or the hope ended, and its status; None for no answer.
        self.asked = []
        self.lock, self.ending = threading.Lock(), threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(number,), daemon=True) for number in range(threads)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self.ending.set()
        for thread in self.threads:
            thread.join()

    def run(self, number):
        due = time.monotonic() + number * self.pause / len(self.threads)
        while not self.ending.wait(max(0, due - time.monotonic())):
            due = max(due + self.pause, time.monotonic() - 1)
            token = self.tokens[len(self.asked) % len(self.tokens)]
            sent = time.time()
            status = self.ask(token)
            with self.lock:
                self.asked.append((sent, time.time(), status))

    def ask(self, token, patience=20):
        caller = http.client.HTTPConnection("127.0.0.1", self.port, timeout=patience)
        try:
            caller.request("GET", self.path, headers={"Authorization": f"Bearer {token}", "Connection": "close"})
            answer = caller.getresponse()
            answer.read()
            return answer.status
        except (OSError, http.client.HTTPException):
            return None
        finally:
            caller.close()

    def answered(self, before=float("inf")):
        """How many were answered until `before`."""
        with self.lock:
            return sum(1 for _, at, status in self.asked if status is not None and at <= before)

    def statuses(self):
        with self.lock:
            seen = [status for _, _, status in self.asked]
        return {status: seen.count(status) for status in sorted(set(seen), key=str)}
