use proptest::collection::btree_map;
use proptest::prelude::*;

use super::*;

fn subscriptions() -> Subscriptions {
    Subscriptions {
        applications: vec![
            Application { name: "a".into(), consumer: "acme".into(), plan: String::new() },
            Application { name: "b".into(), consumer: "acme".into(), plan: "gold".into() },
        ],
        keys: vec![ConsumerKey { key: "k1".into(), application: 1 }, ConsumerKey { key: "k2".into(), application: 0 }],
        subscriptions: vec![Subscription {
            application: 0,
            api: "pets".into(),
            version: "1".into(),
            plan: "gold".into(),
            blocked: false,
        }],
    }
}

fn revocations() -> Revocations {
    Revocations {
        cut_offs: vec![CutOff { kind: CutOffKind::Subject, issuer: "i".into(), value: "s".into(), before: 5 }],
        ids: vec![HashedId { hash: 1, until: 2 }, HashedId { hash: u64::MAX, until: i64::MAX }],
    }
}

#[test]
fn a_table_reads_back_as_it_was_written() {
    assert_eq!(Subscriptions::from_bytes(&subscriptions().to_bytes()).expect("canonical"), subscriptions());
    assert_eq!(Revocations::from_bytes(&revocations().to_bytes()).expect("canonical"), revocations());
    let none = Subscriptions::default();
    assert_eq!(Subscriptions::from_bytes(&none.to_bytes()).expect("canonical"), none);
}

#[test]
fn a_table_has_one_form_only() {
    let mut unsorted = subscriptions();
    unsorted.keys.reverse();
    assert!(matches!(Subscriptions::from_bytes(&unsorted.to_bytes()), Err(EntryError::NotCanonical)));
    let mut twice = revocations();
    twice.ids[1].hash = 1;
    assert!(matches!(Revocations::from_bytes(&twice.to_bytes()), Err(EntryError::NotCanonical)));
    let mut astray = subscriptions();
    astray.keys[0].application = 2;
    assert!(matches!(Subscriptions::from_bytes(&astray.to_bytes()), Err(EntryError::Malformed)));
}

#[test]
fn a_cut_lengthened_or_altered_table_is_never_read_as_the_same() {
    let (subscriptions, revocations) = (subscriptions(), revocations());
    let (a, b) = (subscriptions.to_bytes(), revocations.to_bytes());
    for end in 0..a.len() {
        assert!(Subscriptions::from_bytes(&a[..end]).is_err(), "cut at {end}");
    }
    for end in 0..b.len() {
        assert!(Revocations::from_bytes(&b[..end]).is_err(), "cut at {end}");
    }
    assert!(Subscriptions::from_bytes(&[&a[..], b"x"].concat()).is_err());
    for bit in 0..a.len() * 8 {
        let mut flipped = a.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(Subscriptions::from_bytes(&flipped).ok().is_none_or(|read| read != subscriptions), "bit {bit}");
    }
}

#[test]
fn a_table_that_lies_about_its_size_takes_no_memory() {
    let mut lie = subscriptions().to_bytes();
    lie[8..24].fill(0xff);
    assert!(matches!(Subscriptions::from_bytes(&lie), Err(EntryError::Malformed)));
}

#[test]
fn integers_that_not_every_reader_keeps_and_lists_out_of_order_are_refused() {
    let plans = |count: &str, names: [&str; 2]| {
        let plan = |name| format!(r#"{{"limits":[{{"count":{count},"per":"day"}}],"name":"{name}"}}"#);
        Throttle::from_bytes(format!(r#"{{"plans":[{},{}]}}"#, plan(names[0]), plan(names[1])).as_bytes())
    };
    assert!(plans("9007199254740992", ["a", "b"]).is_ok());
    for count in ["9007199254740993", "18446744073709551615"] {
        assert!(matches!(plans(count, ["a", "b"]), Err(EntryError::Integer)), "{count}");
    }
    assert!(matches!(plans("1", ["b", "a"]), Err(EntryError::NotCanonical)));
}

#[test]
fn json_that_is_not_canonical_is_refused() {
    let canonical = br#"{"plans":[{"limits":[{"count":5,"per":"second"}],"name":"gold"}]}"#;
    assert!(Throttle::from_bytes(canonical).is_ok());
    for other in [
        &br#"{"plans": [{"limits":[{"count":5,"per":"second"}],"name":"gold"}]}"#[..],
        br#"{"plans":[{"name":"gold","limits":[{"count":5,"per":"second"}]}]}"#,
        br#"{"plans":[{"limits":[{"burst":null,"count":5,"per":"second"}],"name":"gold"}]}"#,
    ] {
        assert!(matches!(Throttle::from_bytes(other), Err(EntryError::NotCanonical)));
    }
    let unknown = br#"{"plans":[],"x":1}"#;
    assert!(matches!(Throttle::from_bytes(unknown), Err(EntryError::Json(_))));
    let twice = br#"{"plans":[],"plans":[]}"#;
    assert!(matches!(Throttle::from_bytes(twice), Err(EntryError::Json(_))));
}

/// Lists over few names and numbers, so that texts are shared and rows meet.
pub(in crate::bundle) fn some_list() -> impl Strategy<Value = Revocations> {
    let kind = prop_oneof![Just(CutOffKind::Subject), Just(CutOffKind::Client), Just(CutOffKind::Key)];
    let cut_offs = btree_map((kind, "[ab]{0,2}", "[abé]{0,3}"), 0..4_i64, 0..6);
    (cut_offs, btree_map(0..8_u64, 0..6_i64, 0..6)).prop_map(|(cut_offs, ids)| Revocations {
        cut_offs: cut_offs
            .into_iter()
            .map(|((kind, issuer, value), before)| CutOff { kind, issuer, value, before })
            .collect(),
        ids: ids.into_iter().map(|(hash, until)| HashedId { hash, until }).collect(),
    })
}

proptest! {
    #[test]
    fn a_list_is_checked_in_place_as_if_it_were_written_again(list in some_list(), at in any::<usize>(), byte in any::<u8>()) {
        let mut bytes = list.to_bytes();
        prop_assert_eq!(Revocations::from_bytes(&bytes).expect("the one form"), list);
        let at = at % bytes.len();
        for byte in [byte, bytes[at] ^ 1, bytes[at].wrapping_add(1)] {
            bytes[at] = byte;
            if let Ok(read) = Revocations::from_bytes(&bytes) {
                prop_assert_eq!(read.to_bytes(), &*bytes);
            }
        }
    }
}
