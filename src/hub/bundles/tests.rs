use super::*;
use crate::bundle::root::{RoleKeys, RootDraft};
use crate::keys::SigningKey;

#[test]
fn what_is_left_out_is_counted_what_is_no_bundle_is_not_and_heads_are_read_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let put = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).expect("written");
    for number in 0..MAX_FILES {
        put(&format!("a-{number}.tgb.result.json"), b"{}");
        put(&format!(".a-{number}.tgb"), b"");
    }
    let key = SigningKey::from_seed(&[1; 32]).expect("a key");
    let role = RoleKeys { keys: vec![0], threshold: 1 };
    let root = RootDocument::build(RootDraft {
        deployment: "harbour".into(),
        epoch: 1,
        version: 1,
        issued_at: 1,
        keys: vec![("ada".into(), key.public())],
        roles: BTreeMap::from([(Role::Root, role.clone()), (Role::Policy, role)]),
    })
    .expect("a sound root");
    let enrolment = |seq: u64| {
        let enrolment = Enrolment::new(&root, &key.public(), Labels::new(), seq, 1).expect("sound");
        Document::sign(DocumentKind::Enrolment, &enrolment, &key).expect("signed").to_bytes()
    };
    put("b.tgd", &enrolment(1));
    let first = look(folder.path(), None, None);
    assert_eq!((first.files.len(), first.items().count(), first.left_out), (1, 1, 0));

    let seqs = |list: &List| list.items().map(|item| item.place.2).collect::<Vec<_>>();
    put("c.tgd", &enrolment(2));
    let second = look(folder.path(), None, Some(&first));
    let [one, again] = [&first, &second].map(|list| list.files.values().next().and_then(|listed| listed.item.clone()));
    assert!(one.zip(again).is_some_and(|(one, again)| Arc::ptr_eq(&one, &again)), "its head is not read again");
    assert_eq!(seqs(&second), [1, 2]);
    put(".part", &enrolment(3));
    fs::rename(folder.path().join(".part"), folder.path().join("b.tgd")).expect("moved");
    assert_eq!(seqs(&look(folder.path(), None, Some(&second))), [3, 2], "another file");

    for number in 0..MAX_FILES {
        put(&format!("d-{number}.tgb"), b"");
    }
    let many = look(folder.path(), None, Some(&second));
    assert_eq!((many.files.len(), many.left_out, seqs(&many)), (MAX_FILES, 2, vec![3, 2]));
}

#[test]
fn another_root_orders_enrolments_anew_and_one_that_cannot_be_read_leaves_the_last() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("root.json");
    let key = |seed: u8| SigningKey::from_seed(&[seed; 32]).expect("a key");
    let root = |policy: u8| {
        let role = |at| RoleKeys { keys: vec![at], threshold: 1 };
        RootDocument::build(RootDraft {
            deployment: "harbour".into(),
            epoch: 1,
            version: 1,
            issued_at: 1,
            keys: vec![("policy".into(), key(policy).public()), ("hub".into(), key(2).public())],
            roles: BTreeMap::from([(Role::Root, role(0)), (Role::Policy, role(0)), (Role::Hub, role(1))]),
        })
        .expect("a sound root")
    };
    for (name, by, seq) in [("policy.tgd", 1, 1), ("hub.tgd", 2, 5), ("other.tgd", 3, 9)] {
        let enrolment = Enrolment::new(&root(1), &key(7).public(), Labels::new(), seq, 1).expect("sound");
        let document = Document::sign(DocumentKind::Enrolment, &enrolment, &key(by)).expect("signed");
        fs::write(folder.path().join(name), document.to_bytes()).expect("written");
    }
    let device = DeviceId::from(key(7).public().id());
    let mut last = None;
    for (bytes, seq) in [(root(1).bytes(), 1), (root(4).bytes(), 5), (b"{", 5), (root(3).bytes(), 9)] {
        fs::write(&path, bytes).expect("written");
        let list = look(folder.path(), Some(&path), last.as_ref());
        assert_eq!(list.enrolment(device).map(|item| item.place.2), Some(seq));
        last = Some(list);
    }
}
