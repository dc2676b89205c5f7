//! What usage records keep of persons, in the words in which an author says it.

use crate::bundle::entry::Usage;
use crate::policy::Privacy;

/// How `bundle diff` calls its table of it; it stands before all others.
pub(super) const PRIVACY: &str = "PRIVACY (what usage records keep of persons)";

/// What holds, where `otherwise` holds for what `own` leaves out; that is told from what `own` says.
pub(super) fn kept(own: Usage, otherwise: Privacy) -> [(&'static str, String); 3] {
    let kept = own.or(otherwise);
    let told = |name: &str, is_own: bool| if is_own { name.to_owned() } else { format!("{name} by default") };
    [
        ("principal", told(kept.principal.name(), own.principal.is_some())),
        ("address", told(kept.address.name(), own.address.is_some())),
        ("new hashes each", told(kept.rotate.name(), own.rotate.is_some())),
    ]
}

/// The same on one line.
pub(super) fn line(own: Usage, otherwise: Privacy) -> String {
    let told = kept(own, otherwise).map(|(field, value)| format!("{field} {value}"));
    format!("usage keeps {}", told.join(", "))
}
