#!/usr/bin/env python3
"""Today's ClickHouse against config/clickhouse.sql, in this process: by hand, `pip install chdb`, then run this file.

The tests of the hub run against the server that the distribution has (18.16 in Debian). This shows that the same
definitions and views are taken by today's engine and count the same: a file twice, a tombstone over one of them, a fork
that lost, a claim withdrawn, and rows without a claim.
"""

import os
import re
import tempfile

SQL = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../config/clickhouse.sql")
with open(SQL, encoding="utf-8") as file:
    STATEMENTS = [part.strip() for part in re.sub(r"--.*", "", file.read()).split(";") if part.strip()]

folder = tempfile.TemporaryDirectory()
os.chdir(folder.name)  # the engine leaves files where it starts

from chdb import session  # noqa: E402

engine = session.Session()


def ask(sql):
    return engine.query(sql, "TabSeparated").data().strip()


def fixed(text, length):
    return f"toFixedString('{text}', {length})"


def claim(seq, first, kind, digest, number=1, at=5, withdrawn=0):
    engine.query(
        f"INSERT INTO claims VALUES ({fixed('d', 16)}, {fixed('s', 8)}, {seq}, {first}, {kind}, {fixed(digest, 32)}, "
        f"{number}, '', {fixed(digest, 32)}, '', 1, 0, 0, 0, {at}, 100, {withdrawn})"
    )


def rows(seq, digest, count, day=1):
    engine.query(
        "INSERT INTO request_rows (device, stream, seq, first_seq, kind, digest, row, at_ms, request, api, outcome, bytes_in) "
        f"SELECT {fixed('d', 16)}, {fixed('s', 8)}, {seq}, {seq}, 1, {fixed(digest, 32)}, number, {day * 86400000}, "
        f"{fixed('r', 16)}, 'petstore', 'Admitted', 10 FROM system.numbers LIMIT {count}"
    )


def expect(sql, answer):
    got = ask(sql)
    assert got == answer, f"{sql}\n got {got!r}\nwant {answer!r}"
    print("ok ", sql)


print("ClickHouse", ask("SELECT version()"))
engine.query("CREATE DATABASE hub")
engine.query("USE hub")
for _ in range(2):  # a second hub finds all there
    for statement in STATEMENTS:
        engine.query(statement)
for _ in range(2):
    for seq in (1, 2, 3, 4):
        rows(seq, f"f{seq}", 3)
        claim(seq, seq, 1, f"f{seq}")
expect("SELECT count() FROM records", "12")
rows(1, "fork", 3)
expect("SELECT count() FROM records", "12")
claim(1, 1, 1, "fork", at=6)
expect("SELECT count() FROM records", "12")
claim(1, 1, 1, "fork", at=6, withdrawn=1)
claim(5, 5, 1, "f5", number=1, withdrawn=1)
rows(5, "f5", 3)
expect("SELECT count() FROM records", "12")
claim(5, 5, 1, "f5", number=2)
expect("SELECT count() FROM records", "15")
claim(3, 2, 2, "t23")
engine.query(
    f"INSERT INTO roll_up_rows VALUES ({fixed('d', 16)}, {fixed('s', 8)}, 3, 2, 2, {fixed('t23', 32)}, 0, 5, 172800000, "
    "'Admitted', 6, 60, 0, 'petstore', '')"
)
expect("SELECT count() FROM records", "9")
expect("SELECT sum(count) FROM roll_ups", "6")
expect(
    "SELECT day, api, outcome, requests, bytes_in FROM daily ORDER BY day",
    "1970-01-02\tpetstore\tAdmitted\t9\t90\n1970-01-03\tpetstore\tAdmitted\t6\t60",
)
claim(4, 4, 2, "t4")
expect("SELECT count() FROM records", "9")
for table in ("claims", "request_rows", "roll_up_rows"):
    engine.query(f"OPTIMIZE TABLE {table} FINAL")
expect("SELECT count() FROM records", "9")
engine.query(f"INSERT INTO marks VALUES ({fixed('d', 16)}, {fixed('s', 8)}, 1, 4), ({fixed('d', 16)}, {fixed('s', 8)}, 1, 3)")
expect("SELECT contiguous FROM streams", "4")
engine.query(f"INSERT INTO devices VALUES ({fixed('d', 16)}, {fixed('k', 32)}, 'till', 'config', 0, 1)")
expect("SELECT name, enrolled_by, revoked_ms FROM fleet", "till\tconfig\t0")
engine.query(f"INSERT INTO fork_counts SELECT {fixed('d', 16)}, {fixed('s', 8)}, 1, {fixed('x', 32)}, 'ChainFork', 1 FROM system.numbers LIMIT 3")
expect("SELECT seq, reason, times FROM forks", "1\tChainFork\t3")
for table in ("claims", "request_rows"):
    engine.query(f"ALTER TABLE {table} MODIFY SETTING fsync_after_insert = 1, fsync_part_directory = 1")
expect("SELECT count() FROM records", "9")
print("all is as it should be")
