use super::*;
use crate::keys::SigningKey;
use crate::stick::export::tests::{chain, device, file};

fn verifier() -> Verifier {
    Verifier::new(vec![device().public()], None)
}

#[test]
fn a_whole_chain_is_good_in_any_order_and_twice() {
    let mut verifier = verifier();
    let files = chain(4);
    for file in files.iter().rev().chain(&files) {
        assert!(matches!(verifier.judge(&file.bytes), Judged::Usage { signed: true, .. }));
    }
    let [chain] = &verifier.chains()[..] else { panic!("one stream") };
    assert_eq!((chain.first, chain.last, &chain.holes[..], &chain.forks[..]), (1, 4, &[][..], &[][..]));
}

#[test]
fn holes_forks_and_another_past_are_seen() {
    let mut verifier = verifier();
    let files = chain(9);
    for at in [2, 5, 8] {
        verifier.judge(&files[at].bytes); // 3, 6 and 9
    }
    verifier.judge(&file(3, Some(files[1].digest), 77).bytes);
    verifier.judge(&file(7, Some(files[1].digest), 7).bytes);
    let [chain] = &verifier.chains()[..] else { panic!("one stream") };
    assert_eq!((chain.first, chain.last), (3, 9));
    assert_eq!((&chain.holes[..], &chain.forks[..]), (&[(4, 5), (7, 8)][..], &[3, 7][..]));
}

#[test]
fn what_is_altered_or_anothers_is_bad_and_without_a_key_the_form_is_all_that_is_known() {
    let bytes = chain(1).remove(0).bytes;
    let mut blind = Verifier::default();
    assert!(matches!(blind.judge(&bytes), Judged::Usage { signed: false, .. }));
    let mut altered = bytes.clone();
    let at = altered.len() - 65; // the body's last byte
    altered[at] ^= 1;
    assert!(verifier().judge(&altered).is_bad() && blind.judge(&altered).is_bad());
    *altered.last_mut().expect("bytes") ^= 1;
    assert!(verifier().judge(&altered).is_bad());
    let stranger = SigningKey::from_seed(&[2; 32]).expect("a seed makes a key").public();
    assert!(Verifier::new(vec![stranger], None).judge(&bytes).is_bad());
    assert!(verifier().judge(&bytes[..bytes.len() - 1]).is_bad());
    assert!(verifier().judge(b"").is_bad());
}
