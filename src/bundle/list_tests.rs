use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::bundle::entry::tests::some_list;
use crate::bundle::entry::{CutOff, RevocationRows};
use crate::policy::revocations::TokenIds;

#[derive(Debug)]
struct Kept(Vec<u8>);

impl Table for Kept {
    fn read(&self) -> io::Result<(Box<dyn Read + Send>, u64)> {
        Ok((Box::new(io::Cursor::new(self.0.clone())), self.0.len() as u64))
    }
}

proptest! {
    #[test]
    fn a_list_lacks_what_the_one_before_it_took_away_and_it_does_not(
        before in some_list(), after in some_list(), whole in any::<bool>(), lower in 0..6_i64
    ) {
        // Chance alone seldom makes a list that holds another one.
        let mut after = after;
        if whole {
            let mut ids: BTreeMap<u64, i64> = after.ids.iter().map(|id| (id.hash, id.until)).collect();
            before.ids.iter().for_each(|id| { ids.entry(id.hash).and_modify(|until| *until = id.until.max(*until)).or_insert(id.until); });
            after.ids = ids.into_iter().map(|(hash, until)| HashedId { hash, until }).collect();
        }
        let ids_kept = before.ids.iter().filter(|old| old.until > lower)
            .all(|old| after.ids.iter().any(|new| new.hash == old.hash && new.until >= old.until));
        let named = |row: &CutOff| (row.kind, row.issuer.clone(), row.value.clone());
        let cut_offs_kept = before.cut_offs.iter()
            .all(|old| after.cut_offs.iter().any(|new| named(new) == named(old) && new.before >= old.before));
        let (old, new) = (before.to_bytes(), after.to_bytes());
        let taken = read(&*new, new.len() as u64, Some(&Kept(old.clone())), lower);
        prop_assert_eq!(taken.as_ref().err().map(Refused::name), (!(ids_kept && cut_offs_kept)).then_some("RevocationShrunk"));
        // Read on its own it is what the check in place makes of it.
        let alone = read(&*new, new.len() as u64, None, lower).expect("sound");
        prop_assert_eq!(alone.len().0, after.ids.len());
        let listed = |id: &HashedId| {
            let ids = TokenIds { jti: Some(RevokedId(id.hash)), ..TokenIds::default() };
            alone.find(&ids, None).is_some()
        };
        prop_assert!(after.ids.iter().all(listed));
        // A list before that ends too soon is told, and is not a shorter one.
        let cut = Kept(old[..old.len() - 1].to_vec());
        prop_assert_eq!(read(&*new, new.len() as u64, Some(&cut), lower).expect_err("cut").name(), "StateLost");
    }

    #[test]
    fn a_list_that_comes_by_is_taken_exactly_when_the_check_in_place_takes_it(
        list in some_list(), at in any::<usize>(), byte in any::<u8>(), cut in any::<bool>()
    ) {
        let mut bytes = list.to_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        bytes.truncate(if cut { at } else { bytes.len() });
        let in_place = RevocationRows::from_bytes(&bytes).map(|rows| compile::revocations(&rows).len());
        let read = read(&*bytes, bytes.len() as u64, None, 0).map(|list| list.len());
        prop_assert_eq!(read.ok(), in_place.ok());
    }
}
