//! Names as numbers.

/// A number for names that stays the same for as long as they do: counters are kept under it across a change of policy.
///
/// FNV-1a over each name and its end. The names are the policy's own, so it need not withstand an attacker; the throttle
/// keys what it makes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameHash(u64);

const PRIME: u64 = 0x0000_0100_0000_01b3;

impl NameHash {
    /// Of the names in this order.
    #[must_use]
    pub fn of(names: &[&str]) -> Self {
        let of_name = |hash: u64, name: &&str| {
            let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
            (name.as_bytes().iter().fold(hash, step) ^ 0xff).wrapping_mul(PRIME)
        };
        Self(names.iter().fold(0xcbf2_9ce4_8422_2325, of_name))
    }

    /// Of these names and then others, or a number.
    #[must_use]
    pub fn and(self, then: u64) -> Self {
        // The odd constant is that of the golden ratio: neighbouring numbers end far apart.
        Self((self.0.rotate_left(29) ^ then.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(PRIME))
    }

    /// As a number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::NameHash;

    #[test]
    fn where_a_name_ends_and_what_comes_first_makes_a_difference() {
        let of = NameHash::of;
        let all = [
            of(&["ab", "c"]),
            of(&["a", "bc"]),
            of(&["abc"]),
            of(&["c", "ab"]),
            of(&["ab"]).and(of(&["c"]).get()),
            of(&["c"]).and(of(&["ab"]).get()),
            of(&["ab", "c"]).and(0),
            of(&["ab", "c"]).and(1),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one), "{at}");
        }
    }
}
