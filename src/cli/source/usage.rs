//! `usage` of an API or of the deployment: what usage records keep of persons.

use super::fields::Fields;
use crate::bundle::entry::Usage;
use crate::policy::{KeepAddress, KeepPrincipal, Rotate};

/// What the table `usage` of `fields` says; nothing where there is none.
pub(super) fn read(fields: &mut Fields<'_>) -> Usage {
    let Some(mut table) = fields.table("usage", "usage") else { return Usage::default() };
    let usage = Usage {
        address: table.word("address", &KeepAddress::ALL.map(|keep| (keep.name(), keep))),
        principal: table.word("principal", &KeepPrincipal::ALL.map(|keep| (keep.name(), keep))),
        rotate: table.word("rotate", &Rotate::ALL.map(|rotate| (rotate.name(), rotate))),
    };
    table.finish();
    usage
}
