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
        let mut entry = Self::default();
        for row in Rows::new(bytes)? {
            match row? {
                Row::Application { name, consumer, plan } => {
                    let [name, consumer, plan] = [name, consumer, plan].map(str::to_owned);
                    entry.applications.push(Application { name, consumer, plan });
                }
                Row::Key { key, application } => entry.keys.push(ConsumerKey { key: key.to_owned(), application }),
                Row::Subscription { application, api, version, plan, blocked } => {
                    let [api, version, plan] = [api, version, plan].map(str::to_owned);
                    entry.subscriptions.push(Subscription { application, api, version, plan, blocked });
                }
            }
        }
        Ok(entry)
    }
}

/// A row, its texts where they stand in the entry's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Row<'b> {
    /// As [`Application`].
    Application {
        /// Its name.
        name: &'b str,
        /// Who is billed; may be empty.
        consumer: &'b str,
        /// Name of a plan; empty: none.
        plan: &'b str,
    },
    /// As [`ConsumerKey`].
    Key {
        /// The key.
        key: &'b str,
        /// Position of its application.
        application: u32,
    },
    /// As [`Subscription`].
    Subscription {
        /// Position of its application.
        application: u32,
        /// The API's name.
        api: &'b str,
        /// The API's version.
        version: &'b str,
        /// Name of the plan.
        plan: &'b str,
        /// Whether it was blocked.
        blocked: bool,
    },
}

impl<'b> Row<'b> {
    /// What rows are sorted by.
    fn place(&self) -> (u8, u32, &'b str, &'b str) {
        match *self {
            Self::Application { name, .. } => (0, 0, name, ""),
            Self::Key { key, .. } => (1, 0, key, ""),
            Self::Subscription { application, api, version, .. } => (2, application, api, version),
        }
    }
}

/// The rows of an entry one after the other, so that a hundred thousand are never held as such. What they say counts only
/// if none of them is an error: the last may tell that the whole is not in its one form.
#[derive(Debug)]
pub struct Rows<'b> {
    from: Reader<'b>,
    applications: usize,
    /// Rows of each kind that are left.
    left: [usize; 3],
    before: Option<Row<'b>>,
    has_ended: bool,
}

impl<'b> Rows<'b> {
    /// Of the entry's bytes.
    pub fn new(bytes: &'b [u8]) -> Result<Self, EntryError> {
        let (from, left) = Reader::new(bytes, MAGIC, WIDTHS)?;
        Ok(Self { from, applications: left[0], left, before: None, has_ended: false })
    }

    fn read(&mut self) -> Result<Option<Row<'b>>, EntryError> {
        let Some(kind) = self.left.iter().position(|left| *left > 0) else {
            return self.from.check_end().map(|()| None);
        };
        self.left[kind] -= 1;
        let row = match kind {
            0 => {
                let (name, consumer, plan) = (self.from.text()?, self.from.text()?, self.from.text()?);
                Row::Application { name, consumer, plan }
            }
            1 => Row::Key { key: self.from.text()?, application: self.application()? },
            _ => {
                let application = self.application()?;
                let (api, version, plan) = (self.from.text()?, self.from.text()?, self.from.text()?);
                let blocked = match self.from.u8()? {
                    0 => false,
                    1 => true,
                    _ => return Err(EntryError::Malformed),
                };
                Row::Subscription { application, api, version, plan, blocked }
            }
        };
        match self.before.replace(row) {
            Some(before) if before.place() >= row.place() => Err(EntryError::NotCanonical),
            _ => Ok(Some(row)),
        }
    }

    fn application(&mut self) -> Result<u32, EntryError> {
        let application = self.from.u32()?;
        if (application as usize) < self.applications { Ok(application) } else { Err(EntryError::Malformed) }
    }
}

impl<'b> Iterator for Rows<'b> {
    type Item = Result<Row<'b>, EntryError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_ended {
            return None;
        }
        let row = self.read().transpose();
        self.has_ended = !matches!(row, Some(Ok(_)));
        row
    }
}
