//! The entries of a policy, from their bytes to the policy that answers requests.
//!
//! ```text
//! kind, bytes          one entry, the others golden; a JSON one may be followed by 00 and texts with 00 between them,
//!                      which are paths, hosts, tokens and consumer keys
//! kind + 8, bytes      the same, put into canonical form first, where it can be read
//! 6, (kind, u16 length, bytes)…    several entries
//! ```

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::Ed25519KeyPair;
use serde_json::json;
use tidegate::admission::{Charges, Field, Parts, TakenBack, admit};
use tidegate::bundle::entry::{
    Issuers, JsonEntry, Probes, RevocationReader, RevocationRows, Revocations, Routes, Subscriptions, Throttle,
};
use tidegate::bundle::verify::{Purpose, Verdict};
use tidegate::bundle::{Entries, EntryKind, compile};
use tidegate::policy::revocations::{Kind, Revocations as Table, Revoked, RevokedId, TokenIds};
use tidegate::policy::{Auth, Method, Miss, Policy, RouteIndex, check_path};
use tidegate::token::TokenCache;
use tidegate::units::TimeBounds;

use super::world::{self, AT, GOLDEN};

const IN_FORM: u8 = 8;
const SEVERAL: u8 = 6;
/// Most routes whose own paths are asked for, so that one input is not all of the run.
const ASKED: usize = 24;

/// The golden entries.
pub static ENTRIES: LazyLock<Entries> = LazyLock::new(|| {
    let (verdict, _) = world::judge(&GOLDEN.policy, &world::fresh(&GOLDEN.root), Purpose::Install);
    let Ok(Verdict::Accepted(verified)) = verdict else { panic!("the golden bundle is refused: {verdict:?}") };
    verified.entries().clone()
});

/// A token that the golden issuer signed: with the private key of RFC 8037, A.1, which everybody has.
pub static TOKEN: LazyLock<String> = LazyLock::new(|| {
    let seed = URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").expect("base64url");
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).expect("a seed makes a key");
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA","kid":"k1","typ":"at+jwt"}"#);
    let claims =
        json!({"iss": "https://site.example", "aud": "edge", "exp": AT + 60, "scope": "read", "azp": "client-1"});
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
    format!("Bearer {signed}.{}", URL_SAFE_NO_PAD.encode(pair.sign(signed.as_bytes())))
});

/// The target.
pub fn run(bytes: &[u8]) -> bool {
    let Some((first, mut rest)) = bytes.split_first() else { return false };
    let mut entries = ENTRIES.clone();
    let mut paths = &[][..];
    if *first & 7 == SEVERAL {
        while let [kind, high, low, after @ ..] = rest {
            let length = usize::from(u16::from_be_bytes([*high, *low])).min(after.len());
            let (blob, after) = after.split_at(length);
            rest = after;
            let kind = EntryKind::ALL[usize::from(*kind) % EntryKind::ALL.len()];
            entries.insert(kind, in_form(kind, blob).unwrap_or_else(|| blob.to_vec()));
        }
    } else {
        let kind = EntryKind::ALL[usize::from(*first & 7) % EntryKind::ALL.len()];
        if !matches!(kind, EntryKind::Subscriptions | EntryKind::Revocations)
            && let Some(end) = rest.iter().position(|byte| *byte == 0)
        {
            (rest, paths) = (&rest[..end], &rest[end + 1..]);
        }
        let formed = in_form(kind, rest).filter(|_| first & IN_FORM != 0);
        entries.insert(kind, formed.unwrap_or_else(|| rest.to_vec()));
    }
    entries.iter().for_each(|(kind, blob)| one_form(*kind, blob));
    let Ok(policy) = compile(&entries) else { return false };
    compiled(&policy, &entries, paths);
    true
}

/// The canonical form of an entry that can be read at all.
fn in_form(kind: EntryKind, bytes: &[u8]) -> Option<Vec<u8>> {
    fn read<T: JsonEntry>(bytes: &[u8], sort: impl FnOnce(&mut T)) -> Option<Vec<u8>> {
        let mut entry: T = serde_json::from_slice(bytes).ok()?;
        sort(&mut entry);
        Some(entry.to_bytes())
    }
    match kind {
        EntryKind::Routes => read(bytes, |routes: &mut Routes| {
            routes.apis.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
            routes.upstreams.sort_by(|a, b| a.name.cmp(&b.name));
            let methods = routes.apis.iter_mut().flat_map(|api| &mut api.routes).map(|route| &mut route.methods);
            methods.for_each(|methods| {
                methods.sort();
                methods.dedup();
            });
        }),
        EntryKind::Issuers => read(bytes, |all: &mut Issuers| all.issuers.sort_by(|a, b| a.name.cmp(&b.name))),
        EntryKind::Throttle => read(bytes, |all: &mut Throttle| all.plans.sort_by(|a, b| a.name.cmp(&b.name))),
        EntryKind::Probes => read(bytes, |all: &mut Probes| all.probes.sort_by(|a, b| a.name.cmp(&b.name))),
        EntryKind::Subscriptions | EntryKind::Revocations => None,
        EntryKind::Amd64 | EntryKind::Arm64 | EntryKind::Armhf => None, // not ours to read
    }
}

/// What is read of an entry is written again with the same bytes.
fn one_form(kind: EntryKind, bytes: &[u8]) {
    fn json<T: JsonEntry>(bytes: &[u8]) -> Option<Vec<u8>> {
        T::from_bytes(bytes).ok().map(|entry| entry.to_bytes())
    }
    let again = match kind {
        EntryKind::Routes => json::<Routes>(bytes),
        EntryKind::Issuers => json::<Issuers>(bytes),
        EntryKind::Throttle => json::<Throttle>(bytes),
        EntryKind::Probes => json::<Probes>(bytes),
        EntryKind::Subscriptions => Subscriptions::from_bytes(bytes).ok().map(|entry| entry.to_bytes()),
        EntryKind::Revocations => {
            streamed(bytes);
            Revocations::from_bytes(bytes).ok().map(|entry| entry.to_bytes())
        }
        EntryKind::Amd64 | EntryKind::Arm64 | EntryKind::Armhf => None,
    };
    assert!(again.is_none_or(|again| again == bytes), "entry {kind} has two forms");
}

/// The table read where it lies, and as it comes by, says the same.
fn streamed(bytes: &[u8]) {
    let rows = RevocationRows::from_bytes(bytes);
    let read = || {
        let mut from = RevocationReader::new(bytes, bytes.len() as u64)?;
        let mut ids = Vec::new();
        while let Some(id) = from.next_id()? {
            ids.push(id);
        }
        Ok::<_, std::io::Error>((ids, from.finish()?))
    };
    match (rows, read()) {
        (Ok(rows), Ok((ids, cut_offs))) => {
            assert_eq!(rows.ids().collect::<Vec<_>>(), ids);
            assert!(cut_offs.check().is_ok() && cut_offs.rows().eq(rows.cut_offs()));
        }
        (Ok(_), Err(error)) => panic!("taken where it lies and refused as it comes by: {error}"),
        (Err(error), Ok((ids, cut_offs))) => {
            // The reader leaves the order of the ids to its caller.
            let sorted = ids.is_sorted_by(|a, b| a.hash < b.hash);
            assert!(!sorted || cut_offs.check().is_err(), "taken as it comes by and refused where it lies: {error}");
        }
        (Err(_), Err(_)) => {}
    }
}

/// A policy that was compiled answers whatever it is asked, and by its own entries.
pub fn compiled(policy: &Policy, entries: &Entries, paths: &[u8]) {
    let routes = Routes::from_bytes(&entries[&EntryKind::Routes]).expect("it was compiled");
    let said = (0_u32..).zip(&routes.apis).flat_map(|(api, wire)| wire.routes.iter().map(move |route| (api, route)));
    assert!(
        policy
            .routes
            .iter()
            .map(|route| (route.api, &*route.template))
            .eq(said.clone().map(|(api, wire)| (api, &*wire.template)))
    );
    for (route, (_, wire)) in policy.routes.iter().zip(said) {
        assert!(route.methods.iter().eq(wire.methods.iter().copied()));
        assert!(route.scopes.iter().map(|scope| &**scope).eq(wire.scopes.iter().map(String::as_str)));
        assert_eq!((route.auth, route.uncertain), (wire.auth, wire.uncertain));
    }
    let wanted = String::from_utf8_lossy(paths).into_owned();
    let own = policy.routes.iter().take(ASKED).flat_map(|route| {
        let whole = format!("{}{}", policy.api(route.api).base_path, route.template);
        let filled = whole.split('{').map(|part| part.split_once('}').map_or(part, |(_, after)| after));
        let plain = filled.collect::<Vec<_>>().join("v");
        [plain.replace('*', "a/b"), plain.replace("/*", ""), format!("{plain}/"), plain.replace('v', "w;v=1"), whole]
    });
    let named = routes.apis.iter().flat_map(|api| &api.hosts).take(3).cloned();
    let hosts: Vec<String> = named.chain(["any.example".into(), String::new()]).collect();
    for path in own.chain(wanted.split('\0').take(ASKED).map(str::to_owned)) {
        for host in &hosts {
            ask(policy, &routes, host, &path);
        }
    }
    for text in wanted.split('\0').take(ASKED) {
        admitted(policy, text, "/pets/7", Some(Method::Get), Some(&TOKEN));
        admitted(policy, "any.example:443", "/pets/7", Some(Method::Get), Some(text));
    }
    subscribers(policy, entries, &wanted);
    let table = entries.get(&EntryKind::Revocations).map_or(&[][..], Vec::as_slice);
    if let Ok(rows) = RevocationRows::from_bytes(table) {
        revoked(&policy.revocations, &rows);
    }
    let issuers = Issuers::from_bytes(&entries[&EntryKind::Issuers]).expect("it was compiled");
    assert_eq!(policy.issuers.all().len(), issuers.issuers.len());
    for issuer in &issuers.issuers {
        let (_, found) = policy.issuers.find(&issuer.iss).expect("an issuer is found by its iss");
        assert_eq!((found.name(), found.keys().len()), (&*issuer.name, issuer.keys.len()));
    }
    assert!(policy.issuers.find(&wanted).is_none_or(|(_, found)| found.iss() == wanted));
}

/// The router finds a route that fits, the host's own before any, and misses only where none does.
fn ask(policy: &Policy, routes: &Routes, host: &str, path: &str) {
    let upper = host.to_ascii_uppercase();
    let sound = check_path(path).is_ok();
    let fits = |index: &usize, own: bool| {
        let route = &policy.routes[*index];
        let hosts = &routes.apis[route.api as usize].hosts;
        let here = if own { hosts.iter().any(|name| name == host) } else { hosts.is_empty() };
        here && matches(&policy.api(route.api).base_path, &route.template, path)
    };
    let of = |own| (0..policy.routes.len()).filter(|index| fits(index, own)).collect::<Vec<_>>();
    let (own, any) = (of(true), of(false));
    for method in Method::ALL.into_iter().map(Some).chain([None]) {
        let found = policy.router.find(host, path, method);
        assert_eq!(policy.router.find(&upper, path, method), found, "the case of a host counts");
        match found {
            Ok(index) => {
                let route = policy.route(index);
                let answers = |wanted| route.methods.iter().any(|method| method == wanted);
                let method = method.expect("an unknown method has no route");
                assert!(answers(method) || method == Method::Head && answers(Method::Get));
                let index = index as usize;
                assert!(own.contains(&index) || own.is_empty() && any.contains(&index) || !sound, "{path} at {host:?}");
            }
            Err(Miss::NoRoute) => {
                assert!(own.is_empty() && any.is_empty() || !sound, "{path} at {host:?} fits {own:?} {any:?}");
            }
            Err(Miss::Method { allow }) => {
                assert!(
                    !allow.is_empty() && method.is_none_or(|method| !allow.split(", ").any(|one| one == method.name()))
                );
            }
        }
        for token in [None, Some(&**TOKEN), Some("Bearer eyJ.e30.AA")] {
            admitted(policy, host, path, method, token);
        }
    }
}

/// Nobody gets past a route that wants a token without verified claims, and nothing that the path could hide.
fn admitted(policy: &Policy, host: &str, path: &str, method: Option<Method>, token: Option<&str>) {
    let none = Table::default();
    let header = |name: &str| match token {
        Some(token) if name == "authorization" => Field::Once(token.as_bytes()),
        _ => Field::Absent,
    };
    let method = method.map_or("BREW", Method::name);
    let parts = Parts { authority: host, path, method, certificate: None, header };
    let back = TakenBack { list: &none, as_of: Some(AT) };
    let (mut cache, mut charges) = (TokenCache::new(0), Charges::default());
    let (facts, verdict) = admit(policy, back, &mut cache, &parts, TimeBounds::exact(AT), &mut charges);
    let verdict: Result<RouteIndex, _> = verdict;
    let Ok(index) = verdict else { return };
    let route = policy.route(index);
    assert!(check_path(path).is_ok(), "a path was let in that an upstream could read as another: {path}");
    let signed = TOKEN.trim_start_matches("Bearer ");
    let shown = facts.claims.is_some() && token.is_some_and(|token| token.contains(signed));
    assert!(route.auth == Auth::None || shown, "let in without the token: {token:?}");
    if let Some(claims) = facts.claims {
        assert!(policy.issuers.at(claims.issuer()).is_some());
        assert!(route.scopes.is_empty() || route.scopes.iter().any(|wanted| claims.has_scopes(wanted)));
    }
}

/// Whether `path` is one of the route's, segment by segment.
fn matches(base: &str, template: &str, path: &str) -> bool {
    let segment = |(pattern, segment): (&str, &str)| match pattern.split_once('{') {
        None => pattern == segment,
        Some((before, after)) => {
            let after = after.split_once('}').map_or("", |(_, after)| after);
            let inner = segment.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
            inner.is_some_and(|inner| !inner.is_empty())
        }
    };
    let exact = |pattern: &str, path: &str| {
        pattern.split('/').count() == path.split('/').count() && pattern.split('/').zip(path.split('/')).all(segment)
    };
    match template.strip_suffix("/*") {
        Some(stem) => {
            let stem = format!("{base}{stem}");
            let depth = stem.split('/').count();
            let head: Vec<_> = path.split('/').take(depth).collect();
            path.split('/').count() >= depth && exact(&stem, &head.join("/"))
        }
        None if template == "/" && !base.is_empty() => path == base || path.strip_suffix('/') == Some(base),
        None => exact(&format!("{base}{template}"), path),
    }
}

/// Each consumer key finds its application, and nothing else finds one.
fn subscribers(policy: &Policy, entries: &Entries, wanted: &str) {
    let table = entries.get(&EntryKind::Subscriptions).filter(|bytes| !bytes.is_empty());
    let table = table.map(|bytes| Subscriptions::from_bytes(bytes).expect("it was compiled")).unwrap_or_default();
    assert_eq!(policy.subscribers.applications(), table.applications.len());
    assert_eq!(policy.subscribers.subscriptions(), table.subscriptions.len());
    for key in &table.keys {
        let found = policy.subscribers.find(&key.key, 0).expect("a consumer key is known");
        assert_eq!(found.application.name, table.applications[key.application as usize].name);
    }
    for text in wanted.split('\0').take(ASKED) {
        let known = table.keys.iter().any(|key| key.key == text);
        assert_eq!(policy.subscribers.find(text, 0).is_some(), known);
    }
}

/// What the table lists is taken back, and its neighbours are not.
fn revoked(policy: &Table, rows: &RevocationRows<'_>) {
    let listed: Vec<u64> = rows.ids().map(|id| id.hash).collect();
    let find = |id| policy.find(&TokenIds { jti: Some(RevokedId(id)), ..TokenIds::default() }, None);
    for id in listed.iter().take(256).flat_map(|id| [*id, id.wrapping_add(1), id.wrapping_sub(1)]) {
        assert_eq!(find(id) == Some(Revoked::Listed), listed.binary_search(&id).is_ok(), "{id:016x}");
    }
    for row in rows.cut_offs().take(256) {
        let id = |kind| Some(RevokedId::of(kind, row.issuer, row.value));
        let ids = match row.kind as u8 {
            2 => TokenIds { sub: id(Kind::Sub), ..TokenIds::default() },
            3 => TokenIds { client: id(Kind::Client), ..TokenIds::default() },
            _ => TokenIds { kid: id(Kind::Kid), ..TokenIds::default() },
        };
        for iat in [Some(row.before.saturating_sub(1)), Some(row.before), Some(i64::MIN), Some(i64::MAX), None] {
            let older = iat.is_none_or(|iat| iat < row.before);
            assert_eq!(policy.find(&ids, iat), older.then_some(Revoked::Before(row.before)));
        }
    }
}
