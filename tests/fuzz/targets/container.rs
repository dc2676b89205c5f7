//! A bundle, or a time reset, from its first byte to its verdict.
//!
//! ```text
//! 89 …                                     a file as it comes: only the golden ones are ever taken
//! kind, signers, flags, manifest 00 payload   the harness signs with the real keys that `signers` names: what is taken
//!                                          must be allowed by the rules as they are told once more below
//! ```

use serde_json::Value;
use tidegate::bundle::canonical;
use tidegate::bundle::container::{
    BundleType, FORMAT, Head, MAX_CHAIN, MAX_MANIFEST, PREAMBLE, Preamble, chain, signature_block,
};
use tidegate::bundle::pack;
use tidegate::bundle::reset;
use tidegate::bundle::root::RootDocument;
use tidegate::bundle::trust::MAX_AHEAD;
use tidegate::bundle::verify::{Findings, Purpose, Verdict};
use tidegate::ids::Digest;
use tidegate::keys::sha256;
use tidegate::policy::Policy;
use tidegate::policy::revocations::{Revoked, RevokedId, TokenIds};

use super::world::{self, AT, FLOOR, GOLDEN, SEQ};

const TYPES: [BundleType; 4] = [BundleType::Policy, BundleType::Revocation, BundleType::Permit, BundleType::Release];

/// Flags of the second form.
const SERVING: u8 = 1;
const BROKEN: u8 = 2;
const THIRD_ROOT: u8 = 4;
const FOURTH_ROOT: u8 = 8;
const FILL_IN: u8 = 16;

/// The target.
pub fn run(bytes: &[u8]) -> bool {
    match bytes {
        [0x89, ..] => as_it_comes(bytes, &GOLDEN.root),
        [kind, signers, flags, rest @ ..] => signed(*kind % 5, *signers, *flags, rest),
        _ => as_it_comes(bytes, &GOLDEN.root),
    }
}

/// Whatever the bytes, a device of `root` takes the golden files alone, learns no other root, and believes no other time.
pub fn as_it_comes(bytes: &[u8], root: &RootDocument) -> bool {
    if let Ok(head) = pack::head(bytes) {
        sections(bytes, &head);
    }
    let golden = [&GOLDEN.policy, &GOLDEN.list, &GOLDEN.permit].map(|bundle| pack::digest(bundle).expect("a bundle"));
    let golden = [&golden[..], &[reset::digest(&GOLDEN.reset).expect("a reset")]].concat();
    let mut taken = false;
    for trust in [world::fresh(root), world::serving(root)] {
        for purpose in [Purpose::Install, Purpose::Serve] {
            let (verdict, found) = world::judge(bytes, &trust, purpose);
            let is_golden = found.digest.is_some_and(|digest| golden.contains(&digest));
            assert!(verdict.is_err() || is_golden, "a file was taken that no threshold signed: {verdict:?}");
            let believed = found.issued_at.is_some() || found.author.is_some() || found.seq.is_some();
            assert!(!believed || is_golden, "a time, author or number was believed that no threshold signed");
            assert!(found.roots.iter().all(|next| GOLDEN.roots.contains(&next.root)), "a root was followed: {found:?}");
            if let Ok(verdict) = &verdict {
                assert!(world::taken(verdict).is_none_or(|digest| found.digest == Some(digest)), "about another file");
            }
            if let Ok(Verdict::Accepted(_) | Verdict::Revocations(_) | Verdict::Permit(_)) = verdict {
                let signed = [&GOLDEN.policy, &GOLDEN.list, &GOLDEN.permit].map(|bundle| world::payload(bundle));
                assert!(signed.contains(&world::payload(bytes)), "a payload was taken that nobody signed");
                taken = true;
            }
            taken |= matches!(verdict, Ok(Verdict::TimeReset(_)));
        }
    }
    taken
}

/// The offsets add up, and laying the sections again gives the same bytes.
fn sections(bytes: &[u8], head: &Head) {
    let preamble = head.preamble();
    let (at, end) = (head.bytes().len(), bytes.len());
    assert_eq!(preamble.head_len(), at as u64);
    assert_eq!(preamble.file_len(), end as u64);
    assert_eq!(preamble.payload_len(), (end - at) as u64);
    assert_eq!(head.bytes(), &bytes[..at]);
    assert_eq!(Preamble::parse(&preamble.to_bytes()), Ok(preamble));
    assert_eq!(preamble.to_bytes(), bytes[..PREAMBLE]);
    let manifest = PREAMBLE + head.trust().len();
    assert_eq!(head.trust(), &bytes[PREAMBLE..manifest]);
    assert_eq!(head.manifest(), &bytes[manifest..][..head.manifest().len()]);
    assert!((1..=MAX_MANIFEST as usize).contains(&head.manifest().len()));
    let block = &bytes[manifest + head.manifest().len()..at];
    if let Ok(signatures) = head.signatures() {
        assert_eq!(signature_block(&signatures), block);
        assert!(signatures.windows(2).all(|pair| pair[0].key < pair[1].key), "the signers do not ascend");
        let again = pack::lay(preamble.bundle_type, head.trust(), head.manifest(), &signatures, &bytes[at..]);
        assert_eq!(again.as_deref(), Ok(bytes), "the same sections, laid again, are another file");
    }
    if let Ok(links) = chain(head.trust()) {
        assert!(links.len() <= MAX_CHAIN);
        assert_eq!(links.iter().map(|link| link.bytes).collect::<Vec<_>>().concat(), head.trust());
        for link in links {
            let length = u32::try_from(link.document.len()).expect("it is short").to_be_bytes();
            assert_eq!([&length, link.document, &signature_block(&link.signatures)].concat(), link.bytes);
        }
    }
}

/// A bundle or a reset of the fuzzer's words and the real keys' signatures.
fn signed(kind: u8, mask: u8, flags: u8, rest: &[u8]) -> bool {
    let at = rest.iter().position(|byte| *byte == 0);
    let (manifest, payload) = at.map_or((rest, &[][..]), |at| (&rest[..at], &rest[at + 1..]));
    let manifest = if flags & FILL_IN != 0 { filled_in(manifest, payload) } else { manifest.to_vec() };
    let bundle_type = TYPES.get(usize::from(kind)).copied();
    let media_type = bundle_type.map_or(reset::MEDIA_TYPE, BundleType::media_type);
    let mut signatures = world::signatures(mask, media_type, &manifest);
    let broken = signatures.first_mut().filter(|_| flags & BROKEN != 0).map(|first| {
        first.bytes[usize::from(kind) * 7] ^= 1;
        (1..=8).find(|seed| world::key(*seed).public().id() == first.key).expect("one of them signed")
    });
    let good = mask & !broken.map_or(0, |seed: u8| 1 << (seed - 1));
    let links = &GOLDEN.links[..match flags & (THIRD_ROOT | FOURTH_ROOT) {
        0 => 0,
        THIRD_ROOT => 1,
        _ => 2,
    }];
    let Some(bundle_type) = bundle_type else {
        let length = u32::try_from(manifest.len()).expect("short").to_be_bytes();
        let head = [&reset::MAGIC[..], &FORMAT.to_be_bytes(), &length].concat();
        let file = [head, manifest.clone(), signature_block(&signatures)].concat();
        let (verdict, found) = world::judge(&file, &world::serving(&GOLDEN.root), Purpose::Install);
        assert!(found.roots.is_empty() && found.issued_at.is_none(), "a reset brought a root, or a time for the floor");
        if verdict.is_ok() {
            a_reset_is_allowed(good, &serde_json::from_slice(&manifest).expect("what is taken is JSON"));
        }
        return verdict.is_ok();
    };
    let Ok(file) = pack::lay(bundle_type, &links.concat(), &manifest, &signatures, payload) else { return false };
    sections(&file, &pack::head(&file).expect("it was just laid"));
    let serves = flags & SERVING != 0;
    let trust = if serves { world::serving(&GOLDEN.root) } else { world::fresh(&GOLDEN.root) };
    let (verdict, found) = world::judge(&file, &trust, Purpose::Install);
    assert_eq!(found.roots.len(), links.len(), "the golden chain was not followed");
    let threshold =
        if bundle_type == BundleType::Policy { world::count(good, 4..=6) >= 2 } else { world::count(good, [7]) == 1 };
    assert!(threshold || found.issued_at.is_none() && found.author.is_none(), "believed without the threshold");
    let Ok(verdict) = verdict else { return false };
    assert!(threshold, "taken without the threshold");
    let value: Value = serde_json::from_slice(&manifest).expect("what is taken is JSON");
    let root = links.len().checked_sub(1).map_or(&GOLDEN.root, |last| &GOLDEN.roots[last]);
    Allowed { value: &value, payload, root, serves, counts: serves && root.epoch() == 1 }.check(
        bundle_type,
        &manifest,
        &verdict,
        &found,
    );
    true
}

/// The manifest with the true digests of its entries, where it can be read: nobody finds those by trying.
fn filled_in(manifest: &[u8], payload: &[u8]) -> Vec<u8> {
    let Ok(mut value) = serde_json::from_slice::<Value>(manifest) else { return manifest.to_vec() };
    let mut rest = payload;
    for entry in value.get_mut("entries").and_then(Value::as_array_mut).into_iter().flatten() {
        let Some(entry) = entry.as_object_mut() else { continue };
        let length = entry.get("len").and_then(Value::as_u64).unwrap_or(u64::MAX);
        let length = usize::try_from(length).unwrap_or(usize::MAX).min(rest.len());
        let (blob, after) = rest.split_at(length);
        rest = after;
        entry.insert("sha256".into(), sha256(blob).to_string().into());
    }
    canonical::write(&value).unwrap_or_else(|_| manifest.to_vec())
}

/// The rules of a bundle that is taken, from BUNDLE.md and not from the code.
struct Allowed<'a> {
    value: &'a Value,
    payload: &'a [u8],
    root: &'a RootDocument,
    /// Whether the golden bundle serves.
    serves: bool,
    /// Whether its number counts, and the golden list: a new epoch begins anew.
    counts: bool,
}

impl Allowed<'_> {
    fn number(&self, name: &str) -> u64 {
        self.value[name].as_u64().unwrap_or_else(|| panic!("{name} is no number"))
    }

    fn check(&self, bundle_type: BundleType, manifest: &[u8], verdict: &Verdict<Policy>, found: &Findings) {
        let Self { value, root, .. } = self;
        assert_eq!(world::taken(verdict), Some(sha256(manifest)));
        assert_eq!(found.digest, Some(sha256(manifest)));
        assert_eq!(value["type"], bundle_type.name());
        assert_eq!(value["deployment"], "harbour");
        assert_eq!(self.number("epoch"), root.epoch());
        assert!(self.number("root_version") <= root.version());
        assert_eq!(value["requires"], Value::Array(Vec::new()));
        assert!(self.number("seq") >= 1);
        let issued_at = value["issued_at"].as_i64().expect("a number");
        assert!((0..=AT + 1 + MAX_AHEAD).contains(&issued_at), "issued at {issued_at}");
        if let Some(expires_at) = value.get("expires_at") {
            assert!(expires_at.as_i64().is_some_and(|at| at > AT.max(issued_at)), "taken after it expired");
        }
        names_the_device(&value["target"]);
        self.entries(bundle_type);
        match verdict {
            Verdict::Accepted(verified) => {
                assert_eq!(bundle_type, BundleType::Policy);
                let held: Vec<&[u8]> = verified.entries().values().map(Vec::as_slice).collect();
                assert_eq!(held.iter().map(|blob| blob.len()).sum::<usize>(), self.payload.len());
                self.policy();
            }
            Verdict::Revocations(list) => self.list(list.policy()),
            Verdict::Permit(permit) => self.permit(permit.policy().from, permit.policy().to),
            Verdict::Release(_) => {
                assert_eq!(bundle_type, BundleType::Release);
                assert!(
                    value["version"].as_str().is_some_and(|version| version.starts_with(|c: char| c.is_ascii_digit()))
                );
                assert!(self.number("security_floor") <= self.number("seq"));
            }
            Verdict::AlreadyInstalled(_) => assert!(self.serves, "nothing serves"),
            Verdict::TimeReset(_) => panic!("a bundle became a time reset"),
        }
    }

    /// Each kind once, with the digest of its bytes, which are the whole payload.
    fn entries(&self, bundle_type: BundleType) {
        let entries = self.value["entries"].as_array().expect("a list");
        let mut kinds = Vec::new();
        let mut rest = self.payload;
        for entry in entries {
            let length = usize::try_from(entry["len"].as_u64().expect("a length")).expect("it fits");
            let (blob, after) = rest.split_at_checked(length).expect("an entry ends outside the payload");
            rest = after;
            assert_eq!(entry["sha256"], sha256(blob).to_string(), "taken with other bytes than were signed");
            kinds.push(entry["kind"].as_str().expect("a kind"));
        }
        assert!(rest.is_empty(), "bytes that nobody signed");
        let all =
            ["routes", "issuers", "throttle", "subscriptions", "revocations", "probes", "amd64", "arm64", "armhf"];
        assert!(kinds.iter().all(|kind| all.contains(kind)));
        assert!((1..kinds.len()).all(|at| !kinds[..at].contains(&kinds[at])), "a kind twice");
        match bundle_type {
            BundleType::Policy => {
                assert!(["routes", "issuers", "throttle"].iter().all(|kind| kinds.contains(kind)));
                assert!(all[6..].iter().all(|kind| !kinds.contains(kind)), "a package in a policy");
            }
            BundleType::Revocation => assert_eq!(kinds, ["revocations"]),
            BundleType::Permit => assert!(kinds.is_empty()),
            BundleType::Release => {
                assert!(
                    !kinds.is_empty() && kinds.iter().all(|kind| all[6..].contains(kind)),
                    "{kinds:?} in a release"
                );
            }
        }
    }

    fn policy(&self) {
        let (seq, floor) = (self.number("seq"), self.number("security_floor"));
        assert!(floor <= seq);
        let serving = pack::digest(&GOLDEN.policy).expect("a bundle").to_string();
        if self.counts {
            assert!(seq > SEQ && floor >= FLOOR, "sequence {seq} and floor {floor} came after {SEQ} and {FLOOR}");
        }
        if let Some(base) = self.value.get("base") {
            assert!(self.serves && *base == serving, "made to follow another bundle");
        }
    }

    fn list(&self, policy: &tidegate::policy::revocations::Revocations) {
        assert_eq!(self.number("security_floor"), 0);
        let find = |id| policy.find(&TokenIds { jti: Some(RevokedId(id)), ..TokenIds::default() }, Some(i64::MAX));
        let number = |at: usize| u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("four bytes")) as usize;
        let row = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().expect("eight bytes"));
        let (cut_offs, ids) = (number(8), number(12));
        let rows = self.payload[20 + 25 * cut_offs..][..16 * ids].chunks(16);
        for id in rows.map(|chunk| row(&chunk[..8])) {
            assert_eq!(find(id), Some(Revoked::Listed), "a listed id is not found");
        }
        if self.counts {
            assert!(self.number("seq") > 2);
            let lower = AT.max(self.value["issued_at"].as_i64().expect("a number"));
            for (id, until) in [(5, AT + 3_600), (1 << 63, AT + 7_200)] {
                assert!(until <= lower || find(id).is_some(), "the list gives access back");
            }
            assert!(cut_offs >= 1, "the list gives access back");
        }
    }

    fn permit(&self, from: Digest, to: Digest) {
        assert!(self.serves && self.value["target"].get("devices").is_some());
        assert_eq!(self.number("security_floor"), 0);
        assert_eq!(self.value["permit"]["to"], to.to_string());
        assert_eq!(from, pack::digest(&GOLDEN.policy).expect("a bundle"), "it leads away from what does not serve");
        assert_ne!(from, to);
    }
}

/// The rules of a time reset that is taken.
fn a_reset_is_allowed(good: u8, value: &Value) {
    assert!(world::count(good, 1..=3) >= 2, "a reset was taken without the root's threshold");
    assert_eq!((&value["type"], &value["deployment"]), (&"time-reset".into(), &"harbour".into()));
    assert_eq!(value["epoch"], 1);
    let [at, undoes] = ["at", "undoes"].map(|name| value[name].as_i64().expect("a number"));
    assert!(0 <= at && at < undoes && undoes <= 253_402_300_799);
    assert!(value["seq"].as_u64().is_some_and(|seq| seq >= 1));
    names_the_device(&value["target"]);
}

fn names_the_device(target: &Value) {
    let mine = world::device();
    let named = target["all"] == true
        || target["devices"].as_array().is_some_and(|ids| ids.contains(&mine.id.to_string().into()))
        || target["labels"].as_object().is_some_and(|wanted| {
            let has = |(key, values): (&String, &Value)| {
                mine.labels
                    .get(key)
                    .is_some_and(|label| values.as_array().is_some_and(|v| v.contains(&(&**label).into())))
            };
            !wanted.is_empty() && wanted.iter().all(has)
        });
    assert!(named, "taken by a device that it does not name");
}
