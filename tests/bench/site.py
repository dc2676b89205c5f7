"""site.py FOLDER UPSTREAM: turns the folder of `tidegate init` into the bench's policy, some 60 KiB as a bundle."""

import pathlib
import sys

folder, upstream = pathlib.Path(sys.argv[1]), sys.argv[2]
(folder / "apis/example.toml").unlink()
(folder / "probes.toml").unlink()
(folder / "apis/petstore.toml").write_text(f'''
name = "petstore"
version = "1.0"
base_path = "/petstore/1.0"
upstream = "pets"
issuers = ["site"]
plan = "wide"

[[routes]]
path = "/pet/{{petId}}"
methods = ["GET"]
scopes = ["pets:read", "pets:write"]

[[routes]]
path = "/pet"
methods = ["POST", "PUT"]
scopes = ["pets:write"]

[upstreams.pets]
endpoints = ["http://{upstream}"]
''')
for number in range(40):
    routes = "".join(f'[[routes]]\npath = "/r{at}/{{id}}"\nmethods = ["GET", "DELETE"]\n' for at in range(8))
    text = f'name = "other-{number}"\nversion = "1"\nbase_path = "/other/{number}"\nupstream = "pets"\nissuers = ["site"]\n'
    (folder / f"apis/other-{number}.toml").write_text(text + routes)
(folder / "plans.toml").write_text('''
[plans.wide]
limits = ["10_000_000/second burst 10_000_000"]
[plans.gold]
limits = ["1_000_000/second burst 1_000_000", "100_000_000_000/month"]
''')
applications = range(200)
(folder / "applications.toml").write_text(
    "".join(f'[applications.app-{n}]\nconsumer = "harbour shop"\nkeys = ["app-{n}"]\n' for n in applications))
(folder / "subscriptions.toml").write_text("".join(
    f'[[subscriptions]]\napplication = "app-{n}"\napi = "petstore"\nplan = "gold"\n' for n in applications))
