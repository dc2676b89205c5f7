//! Step 15: the tables of subscriptions and revocations within a policy: sizes, order, references, and the one form.

use tidegate::bundle::EntryKind;
use tidegate::bundle::entry::{
    Application, ConsumerKey, CutOff, CutOffKind, HashedId, Revocations, Subscription, Subscriptions,
};

use super::{Folder, refused, sound};

/// Of the tables: magic, then the counts.
const COUNTS: usize = 8;
/// The first row of subscriptions, and of revocations.
const SUBSCRIPTION_ROWS: usize = 24;
const REVOCATION_ROWS: usize = 20;
const APPLICATION: usize = 24;
const CUT_OFF: usize = 25;
const ID: usize = 16;

pub fn subscriptions() -> Subscriptions {
    let application = |name: &str| Application { name: name.into(), consumer: "acme".into(), plan: "gold".into() };
    let subscription = |application, blocked| Subscription {
        application,
        api: "pets".into(),
        version: "1".into(),
        plan: "gold".into(),
        blocked,
    };
    Subscriptions {
        applications: vec![application("desk"), application("till")],
        keys: vec![
            ConsumerKey { key: "client-1".into(), application: 0 },
            ConsumerKey { key: "client-2".into(), application: 1 },
        ],
        subscriptions: vec![subscription(0, true), subscription(1, false)],
    }
}

pub fn revocations() -> Revocations {
    let cut_off = |value: &str| CutOff {
        kind: CutOffKind::Client,
        issuer: "https://site.example".into(),
        value: value.into(),
        before: 500,
    };
    let id = |hash| HashedId { hash, until: sound::LATE };
    Revocations { cut_offs: vec![cut_off("desk"), cut_off("till")], ids: vec![id(5), id(9)] }
}

fn case(kind: EntryKind, slug: &str, about: &str, bytes: Vec<u8>) -> Folder {
    let slug = format!("{}-{slug}", kind.name());
    refused("tables", &slug, "SemanticInvalid", about, sound::with_entry(kind, bytes))
}

fn patched(mut bytes: Vec<u8>, at: usize, with: &[u8]) -> Vec<u8> {
    bytes[at..at + with.len()].copy_from_slice(with);
    bytes
}

/// Two rows of this width exchanged.
fn exchanged(mut bytes: Vec<u8>, at: usize, width: usize) -> Vec<u8> {
    let (before, after) = bytes.split_at_mut(at + width);
    before[at..].swap_with_slice(&mut after[..width]);
    bytes
}

fn of_subscriptions() -> Vec<Folder> {
    let bytes = || subscriptions().to_bytes();
    let case = |slug: &str, about: &str, bytes: Vec<u8>| case(EntryKind::Subscriptions, slug, about, bytes);
    let changed = |slug: &str, about: &str, change: fn(&mut Subscriptions)| {
        let mut table = subscriptions();
        change(&mut table);
        case(slug, about, table.to_bytes())
    };
    let (keys, rows) = (SUBSCRIPTION_ROWS + 2 * APPLICATION, SUBSCRIPTION_ROWS + 2 * (APPLICATION + 12));
    vec![
        case("other-magic", "The magic of the other table.", patched(bytes(), 0, b"TGREVO\0\x01")),
        case("version-2", "A version of the future.", patched(bytes(), 7, &[2])),
        case("head-cut", "A table that ends within its head.", bytes()[..20].to_vec()),
        case(
            "rows-of-2-32",
            "More applications than bytes: count times width must not overflow.",
            patched(bytes(), COUNTS, &[0xff; 4]),
        ),
        case("one-row-more", "A count one above what is there.", patched(bytes(), COUNTS, &3_u32.to_be_bytes())),
        case("pool-longer", "A pool said to be a byte longer.", patched(bytes(), 20, &[0, 0, 0xff, 0xff])),
        case("byte-more", "A byte behind the pool.", [bytes(), vec![b'x']].concat()),
        case("byte-less", "The pool's last byte is missing.", bytes()[..bytes().len() - 1].to_vec()),
        case(
            "text-outside",
            "A name that begins behind the pool.",
            patched(bytes(), SUBSCRIPTION_ROWS, &1_000_000_u32.to_be_bytes()),
        ),
        case("text-wraps", "A name whose end wraps round 2^32.", patched(bytes(), SUBSCRIPTION_ROWS, &[0xff; 8])),
        case("pool-not-utf-8", "A pool that is no UTF-8.", {
            let at = bytes().len() - 1;
            patched(bytes(), at, &[0xff])
        }),
        case(
            "text-moved",
            "A name at a place where the pool has another text of that length.",
            patched(bytes(), SUBSCRIPTION_ROWS, &1_u32.to_be_bytes()),
        ),
        case("unsorted", "Applications out of order.", exchanged(bytes(), SUBSCRIPTION_ROWS, APPLICATION)),
        case(
            "key-of-nobody",
            "A consumer key of an application that is not there.",
            patched(bytes(), keys + 8, &2_u32.to_be_bytes()),
        ),
        case(
            "row-of-nobody",
            "A subscription of an application that is not there.",
            patched(bytes(), rows, &[0xff; 4]),
        ),
        case("blocked-2", "A subscription that is neither blocked nor not.", patched(bytes(), rows + 28, &[2])),
        changed("application-twice", "One application twice.", |table| table.applications[1].name = "desk".into()),
        changed("key-twice", "One consumer key of two applications: whose request it is would be chance.", |table| {
            table.keys[1].key = "client-1".into()
        }),
        changed("row-twice", "One subscription twice, blocked and not.", |table| {
            table.subscriptions[1].application = 0
        }),
        changed("api-missing", "A subscription to an API that is not there.", |table| {
            table.subscriptions[1].api = "parrots".into()
        }),
        changed("version-missing", "A subscription to a version that is not there.", |table| {
            table.subscriptions[1].version = "2".into()
        }),
        changed("plan-missing", "A subscription on a plan that is not there.", |table| {
            table.subscriptions[1].plan = "iron".into()
        }),
        changed("name-empty", "An application without a name.", |table| table.applications[0].name = String::new()),
        changed("name-control-character", "An application whose name begins a line of its own in a log.", |table| {
            table.applications[1].name = "till\n".into()
        }),
        changed("name-delete", "An application whose name has the control character DEL.", |table| {
            table.applications[1].name = "till\u{7f}".into()
        }),
        changed("key-of-257", "A consumer key one byte over its limit.", |table| table.keys[1].key = "k".repeat(257)),
        changed("key-with-a-space", "A consumer key that no token has.", |table| table.keys[1].key = "a b".into()),
        changed("key-empty", "A consumer key of no bytes.", |table| table.keys[0].key = String::new()),
        changed("consumer-of-129", "A consumer of a name that no usage record can hold.", |table| {
            table.applications[1].consumer = "c".repeat(129)
        }),
        changed("applications-plan-missing", "An application of a plan that is not there.", |table| {
            table.applications[1].plan = "iron".into()
        }),
        changed("plan-empty", "A subscription of no plan.", |table| table.subscriptions[1].plan = String::new()),
        changed("name-of-129", "A name that no usage record can hold.", |table| {
            table.applications[1].name = "x".repeat(129)
        }),
    ]
}

fn of_revocations() -> Vec<Folder> {
    let bytes = || revocations().to_bytes();
    let case = |slug: &str, about: &str, bytes: Vec<u8>| case(EntryKind::Revocations, slug, about, bytes);
    let ids = REVOCATION_ROWS + 2 * CUT_OFF;
    vec![
        case("other-magic", "The magic of the other table.", patched(bytes(), 0, b"TGSUBS\0\x01")),
        case("head-cut", "A table that ends within its head.", bytes()[..16].to_vec()),
        case("ids-of-2-32", "More ids than bytes.", patched(bytes(), 12, &[0xff; 4])),
        case("byte-more", "A byte behind the pool.", [bytes(), vec![b'x']].concat()),
        case(
            "kind-unknown",
            "A cut-off of a kind that there is not: it would end nobody's tokens.",
            patched(bytes(), REVOCATION_ROWS, &[9]),
        ),
        case(
            "cut-offs-unsorted",
            "Cut-offs out of order: a search would miss one.",
            exchanged(bytes(), REVOCATION_ROWS, CUT_OFF),
        ),
        case("cut-off-twice", "One cut-off twice.", {
            let mut table = revocations();
            table.cut_offs[1] = table.cut_offs[0].clone();
            table.to_bytes()
        }),
        case("ids-unsorted", "Ids out of order: a search would miss one.", exchanged(bytes(), ids, ID)),
        case("id-twice", "One id twice.", patched(bytes(), ids + ID, &5_u64.to_be_bytes())),
        case(
            "text-outside",
            "A cut-off of a text behind the pool.",
            patched(bytes(), REVOCATION_ROWS + 1, &1_000_000_u32.to_be_bytes()),
        ),
        case(
            "text-shorter",
            "A cut-off of the beginning of a text: the rest of the pool belongs to nobody.",
            patched(bytes(), REVOCATION_ROWS + 5, &4_u32.to_be_bytes()),
        ),
    ]
}

pub fn cases() -> Vec<Folder> {
    [of_subscriptions(), of_revocations()].concat()
}
