"""A policy of so many APIs of 100 routes each, 1,000 applications, and a subscription of each to each API.

  large.py FOLDER UPSTREAM APIS
"""

import pathlib
import sys

ROUTES, APPLICATIONS = 100, 1_000


def api(number, upstream):
    yield f'name = "api-{number}"\nversion = "1"\nbase_path = "/api-{number}"\nupstream = "up"\nissuers = ["site"]\n'
    for route in range(ROUTES):
        template = f"/things-{route}/{{thing}}/parts/{{part}}" if route else "/ping"
        yield f'[[routes]]\npath = "{template}"\nmethods = ["GET"]\nscopes = ["read"]\n'
    if number == 0:
        yield f'[upstreams.up]\nendpoints = ["http://{upstream}"]\n'


folder, upstream, apis = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
for old in (folder / "apis").iterdir():
    old.unlink()
for name in ["subscriptions.toml", "probes.toml"]:
    (folder / name).unlink(missing_ok=True)
for number in range(apis):
    (folder / f"apis/api-{number}.toml").write_text("\n".join(api(number, upstream)))
(folder / "plans.toml").write_text('[plans.gold]\nlimits = ["1_000_000/second", "100_000_000_000/month"]\n')
(folder / "revocations.toml").unlink(missing_ok=True)
(folder / "applications.toml").write_text(
    "\n".join(f'[applications.app-{n}]\nkeys = ["key-{n}"]\nconsumer = "acme"' for n in range(APPLICATIONS))
)
rows = (f"app-{app},api-{number},1,gold" for app in range(APPLICATIONS) for number in range(apis))
(folder / "subscriptions.csv").write_text("\n".join(["application,api,version,plan", *rows]) + "\n")
