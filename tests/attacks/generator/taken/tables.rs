//! Steps 15 and 16: the tables of a policy, and probes that come out as they say.

use std::collections::BTreeMap;

use ring::signature::Ed25519KeyPair;
use serde_json::{Value, json};
use tidegate::bundle::entry::{
    Application, ConsumerKey, CutOff, CutOffKind, HashedId, Revocations, Subscription, Subscriptions,
};
use tidegate::bundle::{EntryKind, canonical};
use tidegate::policy::revocations::{Kind, RevokedId};

use super::super::keys::base64;
use super::super::sound::{self, LAST, LATE, MADE_AT};
use super::super::{Folder, entries, tables};
use super::taken;

const ISS: &str = "https://site.example";

fn subscribed(slug: &str, about: &str, change: impl FnOnce(&mut Subscriptions)) -> Folder {
    let mut table = tables::subscriptions();
    change(&mut table);
    taken(slug, about, sound::with_entry(EntryKind::Subscriptions, table.to_bytes()))
}

fn subscriptions() -> Vec<Folder> {
    vec![
        subscribed("subscriptions", "Two applications, their keys, and what they subscribe to.", |_| ()),
        subscribed("subscriptions-of-none", "A table of no rows: nobody subscribes.", |table| {
            *table = Subscriptions::default()
        }),
        subscribed("subscriptions-names-of-128", "Names of 128 bytes, and a key of 256.", |table| {
            for (application, letter) in table.applications.iter_mut().zip(["d", "t"]) {
                (application.name, application.consumer) = (letter.repeat(128), "c".repeat(128));
            }
            table.keys[1].key = "k".repeat(256);
        }),
        subscribed("subscriptions-billed-to-nobody", "An application of no consumer and of no plan.", |table| {
            table.applications[0] = Application { name: "desk".into(), consumer: String::new(), plan: String::new() };
        }),
        subscribed("subscriptions-many-keys", "Three keys of one application, none of the other.", |table| {
            table.keys = ["a", "b", "c"].map(|key| ConsumerKey { key: key.into(), application: 1 }).into();
        }),
        subscribed(
            "subscriptions-to-two-apis",
            "Applications that subscribe to two APIs each, some blocked.",
            |table| {
                let row = |application, api: &str, blocked| Subscription {
                    application,
                    api: api.into(),
                    version: "1".into(),
                    plan: "gold".into(),
                    blocked,
                };
                table.subscriptions =
                    vec![row(0, "pets", false), row(0, "shop", true), row(1, "pets", true), row(1, "shop", false)];
            },
        ),
    ]
}

fn revocations() -> Vec<Folder> {
    let revoked = |slug: &str, about: &str, table: Revocations| {
        taken(slug, about, sound::with_entry(EntryKind::Revocations, table.to_bytes()))
    };
    let cut_off = |kind, value: &str, before| CutOff { kind, issuer: ISS.into(), value: value.into(), before };
    vec![
        revoked("revocations", "Two cut-offs and two ids.", tables::revocations()),
        revoked("revocations-of-none", "A table of no rows: nothing is revoked.", Revocations::default()),
        revoked(
            "revocations-of-each-kind",
            "A cut-off of each kind, of 1970 and of 9999, and the ids at both ends.",
            {
                let ids = [(0, 0), (u64::MAX, LAST)].map(|(hash, until)| HashedId { hash, until });
                let cut_offs = vec![
                    cut_off(CutOffKind::Subject, "a", 0),
                    cut_off(CutOffKind::Client, "a", LAST),
                    cut_off(CutOffKind::Key, "a", MADE_AT),
                ];
                Revocations { cut_offs, ids: ids.into() }
            },
        ),
    ]
}

/// When the probes with tokens are tried.
const AT: i64 = 1_700_000_000;

/// A token by the private key of RFC 8037, A.1, whose public half the policy pins.
fn token(change: impl FnOnce(&mut Value)) -> String {
    let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    let key = Ed25519KeyPair::from_seed_unchecked(&tidegate::ids::unhex::<32>(seed).expect("hex")).expect("a key");
    let mut claims = json!({
        "aud": "edge", "client_id": "client-2", "exp": AT + 60, "iat": AT - 60, "iss": ISS, "jti": "one",
        "scope": "read", "sub": "ada",
    });
    change(&mut claims);
    let part = |value: &Value| base64(&canonical::write(value).expect("canonical"));
    let signed = format!("{}.{}", part(&json!({"alg": "EdDSA", "kid": "k1", "typ": "at+jwt"})), part(&claims));
    format!("{signed}.{}", base64(key.sign(signed.as_bytes()).as_ref()))
}

/// A policy of these tables and of one probe, which comes out as it says.
fn probed(slug: &str, result: &str, about: &str, change: impl FnOnce(&mut Value)) -> Folder {
    let mut probe = entries::probe("one");
    probe["expect"] = json!({"result": result});
    change(&mut probe);
    let mut policy = crate::world::entries(
        |p| {
            let apis = p["routes"]["apis"].as_array_mut().expect("a list");
            apis[0]["subscription"] = true.into();
            let open = json!({
                "auth": "none", "methods": ["GET"], "scopes": [], "template": "/open", "uncertain": "allow",
            });
            apis[1]["routes"].as_array_mut().expect("a list").push(open);
            apis[1]["hosts"] = json!(["shop.example"]);
        },
        |text| text,
    );
    let revoked = Revocations {
        cut_offs: vec![],
        ids: vec![HashedId { hash: RevokedId::of(Kind::Jti, ISS, "stolen").0, until: LATE }],
    };
    let more = [
        (EntryKind::Subscriptions, tables::subscriptions().to_bytes()),
        (EntryKind::Revocations, revoked.to_bytes()),
        (EntryKind::Probes, canonical::write(&json!({"probes": [probe]})).expect("canonical")),
    ];
    policy.extend(more.map(|(kind, bytes)| (kind, (kind.name().to_owned(), bytes))));
    taken(&format!("probe-{slug}"), about, sound::with_entries(policy))
}

fn bearing(slug: &str, result: &str, about: &str, change: impl FnOnce(&mut Value)) -> Folder {
    probed(slug, result, about, |probe| {
        probe["headers"] = json!([{"name": "authorization", "value": format!("Bearer {}", token(change))}]);
    })
}

fn probes() -> Vec<Folder> {
    let many: Vec<Value> = (0..256).map(|at| entries::probe(&format!("{at:03}"))).collect();
    let alone = |slug: &str, about: &str, probes: &[Value]| taken(slug, about, entries::probed(probes));
    vec![
        alone("probes", "A probe without a token, which says its route.", &[entries::probe("one")]),
        alone("probes-of-none", "An entry of no probes.", &[]),
        alone("probes-256", "As many probes as may be.", &many),
        alone(
            "probe-name-of-128",
            "A probe of the first second, of a name of 128 bytes.",
            &[{
                let mut probe = entries::probe(&"p".repeat(128));
                probe["at"] = 0.into();
                probe
            }],
        ),
        bearing("with-a-token", "Admitted", "All six entries; a probe with a token is let in.", |_| ()),
        probed("for-an-application", "Admitted", "A probe that says for whom it is counted, and its route.", |probe| {
            probe["expect"] = json!({"application": "till", "result": "Admitted", "route": "/{id}"});
            let value = format!("Bearer {}", token(|_| ()));
            probe["headers"] = json!([{"name": "accept", "value": "*/*"}, {"name": "authorization", "value": value}]);
        }),
        probed("open", "Admitted", "A probe of an open route, by host.", |probe| {
            (probe["path"], probe["host"]) = ("/shop/open".into(), "shop.example:8443".into());
        }),
        probed("host-in-capitals", "Admitted", "A probe by the host in other letters.", |probe| {
            (probe["path"], probe["host"]) = ("/shop/open".into(), "SHOP.example".into());
        }),
        probed("options", "Admitted", "A probe that asks for the methods of a path.", |probe| {
            probe["method"] = "OPTIONS".into()
        }),
        probed("head", "TokenMissing", "A probe by HEAD, which a route of GET answers.", |probe| {
            probe["method"] = "HEAD".into()
        }),
        probed("other-host", "NoRoute", "A probe of an API at another host than its own.", |probe| {
            (probe["path"], probe["host"]) = ("/shop/open".into(), "other.example".into());
        }),
        probed("no-route", "NoRoute", "A probe of a path that is not published.", |probe| {
            probe["path"] = "/parrots/1".into()
        }),
        probed("no-method", "MethodNotAllowed", "A probe of a method that the route does not have.", |probe| {
            probe["method"] = "DELETE".into()
        }),
        probed("dot-segments", "BadRequest", "A probe of a path with dot segments.", |probe| {
            probe["path"] = "/pets/../shop/1".into()
        }),
        probed("two-tokens", "BadRequest", "A probe with two tokens.", |probe| {
            let header = json!({"name": "authorization", "value": format!("Bearer {}", token(|_| ()))});
            probe["headers"] = json!([header, header]);
        }),
        probed("garbage", "TokenMalformed", "A probe with a word for a token.", |probe| {
            probe["headers"] = json!([{"name": "authorization", "value": "Bearer garbage"}]);
        }),
        bearing("expired", "TokenExpired", "A probe whose token has expired when it is tried.", |claims| {
            claims["exp"] = (AT - 3_600).into();
            claims["iat"] = (AT - 7_200).into();
        }),
        bearing("not-yet", "TokenNotYetValid", "A probe whose token is not good yet.", |claims| {
            (claims["nbf"], claims["exp"]) = ((AT + 3_600).into(), (AT + 7_200).into());
        }),
        bearing("revoked", "TokenRevoked", "A probe whose token the policy's own table revokes.", |claims| {
            claims["jti"] = "stolen".into()
        }),
        bearing("scope", "ScopeMissing", "A probe whose token lacks the scope.", |claims| {
            claims["scope"] = "write".into()
        }),
        bearing(
            "blocked",
            "SubscriptionBlocked",
            "A probe by an application whose subscription is blocked.",
            |claims| claims["client_id"] = "client-1".into(),
        ),
        bearing("not-subscribed", "NotSubscribed", "A probe by nobody's client.", |claims| {
            claims["client_id"] = "client-9".into()
        }),
        bearing("other-audience", "AudienceMismatch", "A probe whose token is for others.", |claims| {
            claims["aud"] = "others".into()
        }),
        bearing("other-issuer", "IssuerMismatch", "A probe whose token is by an issuer that there is not.", |claims| {
            claims["iss"] = "https://other.example".into()
        }),
    ]
}

/// Six entries, in the order of their names, which is no order that anything asks for.
fn all_kinds() -> Folder {
    let mut entries: BTreeMap<EntryKind, (String, Vec<u8>)> = crate::world::entries(|_| (), |text| text);
    let more = [
        (EntryKind::Subscriptions, tables::subscriptions().to_bytes()),
        (EntryKind::Revocations, tables::revocations().to_bytes()),
        (EntryKind::Probes, canonical::write(&json!({"probes": []})).expect("canonical")),
    ];
    entries.extend(more.map(|(kind, bytes)| (kind, (kind.name().to_owned(), bytes))));
    let draft = tidegate::bundle::pack::Draft { entries, ..sound::draft(sound::SEQ + 1, "next") };
    let parts = sound::Parts::of(&draft.assemble(&sound::root()).expect("a sound draft"));
    // Turned round, each with its bytes, and all under one name: it is for people.
    let mut rest = &parts.payload[..];
    let mut blobs = Vec::new();
    let turned = parts.value()["entries"].as_array().expect("a list").clone();
    for entry in &turned {
        let (blob, after) = rest.split_at(usize::try_from(entry["len"].as_u64().expect("a length")).expect("short"));
        blobs.push(blob);
        rest = after;
    }
    blobs.reverse();
    let payload = blobs.concat();
    let turned: Vec<Value> =
        turned.into_iter().rev().map(|entry| super::twin(&entry, |entry| entry["name"] = "x".into())).collect();
    let turned = sound::Parts { payload, ..parts }.changed(|m| m["entries"] = turned.into());
    taken(
        "six-entries",
        "An entry of each kind, in another order than theirs, all of one name.",
        turned.signed(&sound::POLICY),
    )
}

pub fn cases() -> Vec<Folder> {
    [subscriptions(), revocations(), probes(), vec![all_kinds()]].concat()
}
