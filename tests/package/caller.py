"""Connects again and again, a request a connection, until its standard input ends: caller.py PORT

Prints how many were answered, how many refused, and how many got no answer: {"answered": 812, "refused": 0, "unanswered": 0}
"""

import json
import select
import socket
import sys

counts = {"answered": 0, "refused": 0, "unanswered": 0}
while not select.select([sys.stdin], [], [], 0.002)[0]:
    try:
        with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=60) as connection:
            connection.sendall(b"GET /nowhere HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n")
            answered = connection.recv(64).startswith(b"HTTP/1.1 ")
            counts["answered" if answered else "unanswered"] += 1
    except ConnectionRefusedError:
        counts["refused"] += 1
    except OSError:
        counts["unanswered"] += 1
print(json.dumps(counts))
