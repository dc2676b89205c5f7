//! The throw-away site: policy folder, bundle, tokens and settings, made by the commands that an operator types.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use hyper::Method;

use super::traffic::Kind;

const OPENAPI: &str = include_str!("../../../config/petstore.yaml");
const ISSUER: &str = "https://tokens.example.com";
/// The key's id in the folder that `tidegate init` makes.
const KID: &str = "2026-01";

const APPLICATIONS: &str = "\
[applications.shop]
consumer = \"harbour shop\"
keys = [\"shop\"]

[applications.trial]
keys = [\"trial\"]

[applications.stranger]
keys = [\"stranger\"]
";
const PLANS: &str = "[plans.gold]\nlimits = []\n\n[plans.trial]\nlimits = [\"20/second burst 20\"]\n";

/// A path below the sample API's base path.
macro_rules! path {
    ($rest:literal) => {
        concat!("/petstore/1.0.0", $rest)
    };
}

/// Where everything is.
#[derive(Debug)]
pub(super) struct Site {
    folder: PathBuf,
    /// Where the callers find the gateway.
    pub(super) gateway: SocketAddr,
}

impl Site {
    /// Makes the policy folder with its keys, imports the sample API, builds and signs the bundle.
    pub(super) fn make(folder: &Path, gateway: SocketAddr, upstream: SocketAddr) -> anyhow::Result<Self> {
        let site = Self { folder: folder.to_owned(), gateway };
        site.tidegate(&["init", "policy", "--deployment", "demo"])?;
        let policy = site.path("policy");
        fs::remove_file(policy.join("apis/example.toml")).context("cannot take the example API out of the folder")?;
        let rows = [("applications.toml", APPLICATIONS), ("plans.toml", PLANS), ("subscriptions.toml", SUBSCRIPTIONS)];
        for (name, text) in rows {
            fs::write(policy.join(name), text).with_context(|| format!("cannot write {name}"))?;
        }
        fs::write(site.path("petstore.yaml"), OPENAPI).context("cannot write petstore.yaml")?;
        let to = format!("http://{upstream}");
        site.tidegate(&[
            "import",
            "openapi",
            "petstore.yaml",
            "--name",
            "petstore",
            "--into",
            "policy",
            "--upstream",
            &to,
        ])?;
        site.tidegate(&["bundle", "build", "policy", "-o", "policy-1.tgb", "--reason", "demo"])?;
        site.tidegate(&["bundle", "sign", "policy-1.tgb", "--key", "policy/keys/policy.key", "--yes"])?;
        fs::create_dir_all(site.path("inbox")).context("cannot make the inbox")?;
        Ok(site)
    }

    /// A file of the site.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes the gateway's settings; usage goes to `hub`. Everything is sped up, so that a demo is short.
    pub(super) fn write_gateway_settings(&self, hub: SocketAddr) -> anyhow::Result<PathBuf> {
        let text = format!(
            "state = {state:?}\ninbox = {inbox:?}\n\n[trust]\nroot = {root:?}\n\n[gateway]\nworkers = 1\n\n\
             [[gateway.listeners]]\naddress = \"{listen}\"\n# the callers are ours: their request ids are taken over\n\
             trust_request_id = true\n\n[spool]\nseal_after = \"200ms\"\nseal_after_offline = \"200ms\"\n\
             # every refusal in full, for the books\nunauthenticated_records = 100000\n\n[upload]\n\
             hubs = [\"http://{hub}\"]\nretry_base = \"100ms\"\nretry_cap = \"1s\"\ninterval = \"1s\"\n\n[admin]\nsocket = {socket:?}\n",
            state = self.path("state"),
            inbox = self.path("inbox"),
            root = self.path("policy/root.json"),
            listen = self.gateway,
            socket = self.path("admin.sock"),
        );
        self.write("tidegated.toml", &text)
    }

    /// Writes the hub's settings.
    pub(super) fn write_hub_settings(&self, listen: SocketAddr) -> anyhow::Result<PathBuf> {
        let text = format!(
            "listen = \"{listen}\"\ndatabase = {database:?}\nkey_file = {key:?}\nenrol = \"any\"\n",
            database = self.path("hub.sqlite"),
            key = self.path("policy/keys/hub.key"),
        );
        self.write("tidegate-hub.toml", &text)
    }

    /// Brings the signed bundle to the gateway as a person would: copied beside, then moved in.
    pub(super) fn drop_bundle(&self) -> anyhow::Result<()> {
        let part = self.path("inbox/policy-1.tgb.part");
        fs::copy(self.path("policy-1.tgb"), &part).context("cannot copy the bundle into the inbox")?;
        fs::rename(&part, self.path("inbox/policy-1.tgb")).context("cannot move the bundle into the inbox")
    }

    /// The bundle's result, once the gateway has judged it.
    pub(super) fn bundle_result(&self) -> Option<String> {
        let text = fs::read_to_string(self.path("inbox/policy-1.tgb.result.json")).ok()?;
        let result: serde_json::Value = serde_json::from_str(&text).ok()?;
        Some(result.get("body")?.get("result")?.as_str()?.to_owned())
    }

    /// A token for the curl line, and one that runs out.
    pub(super) fn token(&self, client: &str, scopes: &[&str], extra: &[&str]) -> anyhow::Result<String> {
        let mut arguments = vec!["token", "mint", "--key", "policy/keys/issuer.pem", "--kid", KID];
        arguments.extend(["--iss", ISSUER, "--aud", "edge", "--sub", "demo", "--client", client]);
        arguments.extend(scopes.iter().flat_map(|scope| ["--scope", *scope]));
        arguments.extend(extra);
        Ok(self.tidegate(&arguments)?.trim().to_owned())
    }

    /// Requests good and bad, with the outcomes that are right for each.
    pub(super) fn kinds(&self) -> anyhow::Result<Vec<Kind>> {
        let shop = self.token("shop", &["pets:read", "pets:write"], &[])?;
        let reader = self.token("shop", &["orders:read"], &[])?;
        let trial = self.token("trial", &["pets:read"], &[])?;
        let stranger = self.token("stranger", &["pets:read"], &[])?;
        let expired = self.token("shop", &["pets:read"], &["--now", "1700000000", "--ttl", "1h"])?;
        let forged = forged(&shop);
        let kind = |name, method, path, token: &str, outcomes, weight| Kind {
            name,
            method,
            path,
            token: Some(token.to_owned()),
            body: "",
            outcomes,
            weight,
        };
        let get = Method::GET;
        let mut kinds = vec![
            kind("pet by number", get.clone(), path!("/pets/7"), &shop, &["Admitted"], 40),
            kind("new pet", Method::POST, path!("/pets"), &shop, &["Admitted"], 20),
            kind("trial application", get.clone(), path!("/pets"), &trial, &["Admitted", "RateLimited"], 10),
            kind("expired token", get.clone(), path!("/pets/7"), &expired, &["TokenExpired"], 4),
            kind("forged token", get.clone(), path!("/pets/7"), &forged, &["SignatureInvalid"], 4),
            kind("wrong scope", get.clone(), path!("/pets/7"), &reader, &["ScopeMissing"], 4),
            kind("not subscribed", get.clone(), path!("/pets/7"), &stranger, &["NotSubscribed"], 4),
            kind("unknown path", get.clone(), path!("/cats"), &shop, &["NoRoute"], 4),
            kind("wrong method", Method::PUT, path!("/pets"), &shop, &["MethodNotAllowed"], 4),
        ];
        kinds[1].body = "{\"name\":\"Selkie\",\"status\":\"available\"}";
        let no_token =
            Kind { token: None, ..kind("no token", get.clone(), path!("/pets/7"), "", &["TokenMissing"], 4) };
        let open = Kind { token: None, ..kind("open route", get, path!("/hours"), "", &["Admitted"], 2) };
        kinds.extend([no_token, open]);
        Ok(kinds)
    }

    /// The line that a person can paste.
    pub(super) fn curl(&self) -> anyhow::Result<String> {
        let token = self.token("shop", &["pets:read"], &["--ttl", "12h"])?;
        Ok(format!("curl -i -H 'Authorization: Bearer {token}' http://{}{}", self.gateway, path!("/pets/7")))
    }

    fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Runs this program with `arguments` in the site's folder; gives what it printed.
    fn tidegate(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = Command::new(std::env::current_exe().context("cannot tell where this program is")?)
            .args(arguments)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .output()
            .context("cannot start this program again")?;
        if !output.status.success() {
            bail!("tidegate {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        String::from_utf8(output.stdout).context("a command printed something else than text")
    }
}

const SUBSCRIPTIONS: &str = "\
[[subscriptions]]
application = \"shop\"
api = \"petstore\"
plan = \"gold\"

[[subscriptions]]
application = \"trial\"
api = \"petstore\"
plan = \"trial\"
";

/// The same token with one letter of its signature changed.
fn forged(token: &str) -> String {
    let at = token.rfind('.').map_or(0, |dot| dot + 1);
    let (head, signature) = token.split_at(at);
    let swapped = if signature.starts_with('A') { "B" } else { "A" };
    format!("{head}{swapped}{}", signature.get(1..).unwrap_or_default())
}
