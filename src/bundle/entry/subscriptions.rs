//! Entry `subscriptions`: applications, consumer keys and subscriptions.
//!
//! ```text
//! off size field                       (big-endian; a text is u32 offset, u32 length into the pool)
//! 0   8    magic "TGSUBS\0\x01"
//! 8   4    number of applications
//! 12  4    number of consumer keys
//! 16  4    number of subscriptions
//! 20  4    length of the pool
//! 24  24·n applications   text name, text consumer, text plan ("" = none)          by name
//!     12·n consumer keys  text key, u32 application                                by key
//!     29·n subscriptions  u32 application, text api, text version, text plan, u8 blocked
//!                                                                     by application, api, version
//!     …    pool, UTF-8
//! ```

use super::EntryError;
use super::table::{Reader, Writer, width};

const MAGIC: [u8; 8] = *b"TGSUBS\0\x01";
const WIDTHS: [usize; 3] = [width(3, 0), width(1, 4), width(3, 5)];

/// The entry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Subscriptions {
    /// Sorted by name.
    pub applications: Vec<Application>,
    /// Sorted by key.
    pub keys: Vec<ConsumerKey>,
    /// Sorted by application, API, version.
    pub subscriptions: Vec<Subscription>,
}

/// A client application.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Application {
    /// Its name.
    pub name: String,
    /// Who is billed; may be empty.
    pub consumer: String,
    /// Name of a plan for all that it does; empty: none.
    pub plan: String,
}

/// A consumer key, as tokens give it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConsumerKey {
    /// The key.
    pub key: String,
    /// Position of its application.
    pub application: u32,
}

/// A subscription.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subscription {
    /// Position of its application.
    pub application: u32,
    /// The API's name.
    pub api: String,
    /// The API's version.
    pub version: String,
    /// Name of the plan.
    pub plan: String,
    /// Whether it was blocked.
    pub blocked: bool,
}

impl Subscriptions {
    /// Its bytes. The caller has sorted the rows.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::default();
        for row in &self.applications {
            out.text(&row.name);
            out.text(&row.consumer);
            out.text(&row.plan);
        }
        for row in &self.keys {
            out.text(&row.key);
            out.u32(row.application);
        }
        for row in &self.subscriptions {
            out.u32(row.application);
            out.text(&row.api);
            out.text(&row.version);
            out.text(&row.plan);
            out.u8(row.blocked.into());
        }
        out.finish(MAGIC, &[self.applications.len(), self.keys.len(), self.subscriptions.len()])
    }

    /// Reads and checks that rows are sorted, none twice, and this is the one form.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, EntryError> {
        let (mut from, [applications, keys, subscriptions]) = Reader::new(bytes, MAGIC, WIDTHS)?;
        let application = |from: &mut Reader<'_>| {
            Ok::<_, EntryError>(Application { name: from.text()?, consumer: from.text()?, plan: from.text()? })
        };
        let key = |from: &mut Reader<'_>| {
            let (key, application) = (from.text()?, from.u32()?);
            if (application as usize) < applications {
                Ok(ConsumerKey { key, application })
            } else {
                Err(EntryError::Malformed)
            }
        };
        let subscription = |from: &mut Reader<'_>| {
            let (application, api, version, plan) = (from.u32()?, from.text()?, from.text()?, from.text()?);
            let blocked = match from.u8()? {
                0 => false,
                1 => true,
                _ => return Err(EntryError::Malformed),
            };
            if application as usize >= applications {
                return Err(EntryError::Malformed);
            }
            Ok(Subscription { application, api, version, plan, blocked })
        };
        let entry = Self {
            applications: (0..applications).map(|_| application(&mut from)).collect::<Result<_, _>>()?,
            keys: (0..keys).map(|_| key(&mut from)).collect::<Result<_, _>>()?,
            subscriptions: (0..subscriptions).map(|_| subscription(&mut from)).collect::<Result<_, _>>()?,
        };
        let sorted = entry.applications.is_sorted_by(|a, b| a.name < b.name)
            && entry.keys.is_sorted_by(|a, b| a.key < b.key)
            && entry
                .subscriptions
                .is_sorted_by(|a, b| (a.application, &a.api, &a.version) < (b.application, &b.api, &b.version));
        if sorted && entry.to_bytes() == bytes { Ok(entry) } else { Err(EntryError::NotCanonical) }
    }
}
