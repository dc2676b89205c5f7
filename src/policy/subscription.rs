//! Applications, the consumer keys that name them in tokens, and what they are subscribed to.
//!
//! Fixed-size rows in sorted boxed slices over one string pool: a hundred thousand subscriptions cost
//! a few megabytes, a look-up is two binary searches and allocates nothing.

use std::collections::BinaryHeap;

use super::{ApiIndex, ApplicationIndex, PlanIndex};

/// A client application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Application<'p> {
    /// Its position.
    pub index: ApplicationIndex,
    /// Its name, as usage records give it.
    pub name: &'p str,
    /// Who is billed for it; may be empty.
    pub consumer: &'p str,
    /// A limit on all that it does.
    pub plan: Option<PlanIndex>,
}

/// An application's right to use an API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscription {
    /// How much it may use.
    pub plan: PlanIndex,
    /// Whether it may use it now.
    pub standing: Standing,
}

/// Whether a subscription may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Standing {
    /// It may.
    Active = 0,
    /// It was blocked by the API's owner.
    Blocked = 1,
}

/// Who a consumer key stands for, and whether it is subscribed to the API in question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscriber<'p> {
    /// The application.
    pub application: Application<'p>,
    /// Its subscription to the API.
    pub subscription: Option<Subscription>,
}

/// All applications and subscriptions.
#[derive(Debug, Default)]
pub struct Subscribers {
    applications: Box<[ApplicationRow]>,
    /// Sorted by the key's text.
    keys: Box<[KeyRow]>,
    /// Sorted by application, then API.
    subscriptions: Box<[SubscriptionRow]>,
    pool: Box<str>,
}

#[derive(Debug, Clone, Copy)]
struct Text {
    at: u32,
    len: u32,
}

#[derive(Debug)]
struct ApplicationRow {
    name: Text,
    consumer: Text,
    plan: Option<PlanIndex>,
}

#[derive(Debug)]
struct KeyRow {
    key: Text,
    application: ApplicationIndex,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct SubscriptionRow {
    application: ApplicationIndex,
    api: ApiIndex,
    plan: PlanIndex,
    standing: Standing,
}

impl Subscribers {
    /// The application that `consumer_key` stands for, and its subscription to `api`.
    #[must_use]
    pub fn find(&self, consumer_key: &str, api: ApiIndex) -> Option<Subscriber<'_>> {
        let at = self.keys.binary_search_by(|row| self.bytes(row.key).cmp(consumer_key.as_bytes())).ok()?;
        let application = self.keys[at].application;
        let subscription =
            self.subscriptions.binary_search_by_key(&(application, api), |row| (row.application, row.api)).ok();
        let subscription = subscription.map(|at| &self.subscriptions[at]);
        Some(Subscriber {
            application: self.application(application),
            subscription: subscription.map(|row| Subscription { plan: row.plan, standing: row.standing }),
        })
    }

    /// The application at `index`.
    #[must_use]
    pub fn application(&self, index: ApplicationIndex) -> Application<'_> {
        let row = &self.applications[index as usize];
        Application { index, name: self.text(row.name), consumer: self.text(row.consumer), plan: row.plan }
    }

    /// How many applications there are.
    #[must_use]
    pub fn applications(&self) -> usize {
        self.applications.len()
    }

    /// How many subscriptions there are.
    #[must_use]
    pub fn subscriptions(&self) -> usize {
        self.subscriptions.len()
    }

    fn bytes(&self, text: Text) -> &[u8] {
        &self.pool.as_bytes()[text.at as usize..text.at as usize + text.len as usize]
    }

    fn text(&self, text: Text) -> &str {
        &self.pool[text.at as usize..text.at as usize + text.len as usize]
    }
}

/// Builds [`Subscribers`]; rows may come in any order.
#[derive(Debug, Default)]
pub struct SubscribersBuilder {
    applications: Vec<ApplicationRow>,
    keys: Vec<KeyRow>,
    subscriptions: Vec<SubscriptionRow>,
    pool: String,
}

impl SubscribersBuilder {
    /// Adds an application; its index counts up from 0.
    pub fn application(&mut self, name: &str, consumer: &str, plan: Option<PlanIndex>) -> ApplicationIndex {
        let row = ApplicationRow { name: self.pooled(name), consumer: self.pooled(consumer), plan };
        self.applications.push(row);
        u32::try_from(self.applications.len() - 1).expect("the entry's size limit bounds the rows")
    }

    /// Says that `key` in a token stands for `application`.
    pub fn key(&mut self, key: &str, application: ApplicationIndex) {
        assert!((application as usize) < self.applications.len(), "the application was added before");
        let key = self.pooled(key);
        self.keys.push(KeyRow { key, application });
    }

    /// Subscribes `application` to `api`.
    pub fn subscription(&mut self, application: ApplicationIndex, api: ApiIndex, plan: PlanIndex, standing: Standing) {
        self.subscriptions.push(SubscriptionRow { application, api, plan, standing });
    }

    /// Sorts and seals; `Err` gives what stands there twice: a consumer key, or an application's name
    /// that is subscribed to one API twice.
    pub fn build(self) -> Result<Subscribers, String> {
        let mut built = Subscribers {
            applications: self.applications.into(),
            keys: Box::default(),
            subscriptions: BinaryHeap::from(self.subscriptions).into_sorted_vec().into(),
            pool: self.pool.into(),
        };
        let mut keys = self.keys;
        keys.sort_unstable_by(|a, b| built.text(a.key).cmp(built.text(b.key)));
        built.keys = keys.into();
        let twice = built.keys.windows(2).find(|pair| built.text(pair[0].key) == built.text(pair[1].key));
        if let Some(pair) = twice {
            return Err(built.text(pair[0].key).to_owned());
        }
        let place = |row: &SubscriptionRow| (row.application, row.api);
        let twice = built.subscriptions.windows(2).find(|pair| place(&pair[0]) == place(&pair[1]));
        match twice {
            Some(pair) => Err(built.application(pair[0].application).name.to_owned()),
            None => Ok(built),
        }
    }

    fn pooled(&mut self, text: &str) -> Text {
        let at = u32::try_from(self.pool.len()).expect("the entry's size limit bounds the pool");
        self.pool.push_str(text);
        Text { at, len: u32::try_from(text.len()).expect("a part of the pool") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consumer_key_finds_its_application_and_only_its_own_subscriptions() {
        let mut builder = SubscribersBuilder::default();
        let (a, b) = (builder.application("a", "acme", None), builder.application("b", "", Some(1)));
        builder.key("zeta", a);
        builder.key("alpha", b);
        builder.subscription(b, 1, 0, Standing::Blocked);
        builder.subscription(a, 1, 0, Standing::Active);
        let subscribers = builder.build().expect("nothing twice");
        let found = subscribers.find("zeta", 1).expect("the key is known");
        assert_eq!((found.application.name, found.application.consumer), ("a", "acme"));
        assert_eq!(found.subscription, Some(Subscription { plan: 0, standing: Standing::Active }));
        assert_eq!(
            subscribers.find("alpha", 1).and_then(|s| s.subscription).map(|s| s.standing),
            Some(Standing::Blocked)
        );
        assert_eq!(subscribers.find("alpha", 0).expect("the key is known").subscription, None);
        assert_eq!(subscribers.find("beta", 1), None);
    }

    #[test]
    fn what_stands_there_twice_is_named() {
        let mut keys = SubscribersBuilder::default();
        let a = keys.application("a", "", None);
        keys.key("k", a);
        keys.key("k", a);
        assert_eq!(keys.build().err(), Some("k".into()));
        let mut subscriptions = SubscribersBuilder::default();
        let a = subscriptions.application("a", "", None);
        subscriptions.subscription(a, 0, 0, Standing::Active);
        subscriptions.subscription(a, 0, 1, Standing::Active);
        assert_eq!(subscriptions.build().err(), Some("a".into()));
    }
}
