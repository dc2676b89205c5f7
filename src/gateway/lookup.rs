//! The addresses of an endpoint's name: one question at a time, and its answer kept for a while.
//!
//! The system's resolver holds a thread for as long as it likes and cannot be called off. So one that gives no answer
//! holds one thread for each endpoint and worker, however many requests want it and however soon they give up.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::policy::Endpoint;

/// How long an answer is good; it is forgotten sooner where nothing at it takes a connection.
const GOOD_FOR: Duration = Duration::from_secs(10);

/// Where an endpoint is.
pub(super) struct Lookup {
    host: Box<str>,
    port: u16,
    shared: Rc<Shared>,
}

#[derive(Default)]
struct Shared {
    known: RefCell<Option<Known>>,
    is_asking: Cell<bool>,
    answered: Notify,
}

struct Known {
    addresses: Rc<[SocketAddr]>,
    /// `None`: it was an address all along.
    until: Option<Instant>,
}

impl Lookup {
    pub(super) fn new(endpoint: &Endpoint) -> Self {
        let shared = Shared::default();
        if let Ok(address) = endpoint.host.parse::<IpAddr>() {
            let addresses = [SocketAddr::from((address, endpoint.port))].into();
            shared.known.replace(Some(Known { addresses, until: None }));
        }
        Self { host: endpoint.host.clone(), port: endpoint.port, shared: Rc::new(shared) }
    }

    pub(super) async fn addresses(&self) -> io::Result<Rc<[SocketAddr]>> {
        let (host, port) = (self.host.to_string(), self.port);
        self.addresses_by(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) }).await
    }

    /// What is known; else by `question`, or by the one that was asked before and is not answered yet.
    async fn addresses_by(
        &self,
        question: impl Future<Output = io::Result<Rc<[SocketAddr]>>> + 'static,
    ) -> io::Result<Rc<[SocketAddr]>> {
        if let Some(addresses) = self.known() {
            return Ok(addresses);
        }
        let answered = self.shared.answered.notified();
        if !self.shared.is_asking.replace(true) {
            let shared = Rc::clone(&self.shared);
            tokio::task::spawn_local(async move {
                let answer = question.await.ok().filter(|addresses| !addresses.is_empty());
                let until = Instant::now().checked_add(GOOD_FOR);
                shared.known.replace(answer.map(|addresses| Known { addresses, until }));
                shared.is_asking.set(false);
                shared.answered.notify_waiters();
            });
        }
        answered.await;
        self.known().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn known(&self) -> Option<Rc<[SocketAddr]>> {
        let known = self.shared.known.borrow();
        let known = known.as_ref().filter(|known| known.until.is_none_or(|until| Instant::now() < until));
        known.map(|known| Rc::clone(&known.addresses))
    }

    /// Nothing at these addresses took a connection: the name may have moved.
    pub(super) fn forget(&self) {
        self.shared.known.borrow_mut().take_if(|known| known.until.is_some());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolver_that_gives_no_answer_is_asked_once_and_an_answer_is_kept() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let lookup = Rc::new(Lookup::new(&Endpoint::parse("http://pets.example:81").expect("a plain URL")));
            let (asked, answer) = (Rc::new(Cell::new(0)), Rc::new(Notify::new()));
            let address = SocketAddr::from(([127, 0, 0, 1], 81));
            let ask = || {
                let (lookup, asked, answer) = (Rc::clone(&lookup), Rc::clone(&asked), Rc::clone(&answer));
                async move {
                    let question = async move {
                        asked.set(asked.get() + 1);
                        answer.notified().await;
                        Ok([address].into())
                    };
                    lookup.addresses_by(question).await
                }
            };
            // Many give up waiting; the question stands.
            for _ in 0..100 {
                assert!(tokio::time::timeout(Duration::from_millis(1), ask()).await.is_err());
            }
            assert_eq!(asked.get(), 1);
            answer.notify_one();
            assert_eq!(&*ask().await.expect("the first one's answer"), [address]);
            assert_eq!(&*ask().await.expect("what is kept"), [address]);
            assert_eq!(asked.get(), 1);
            lookup.forget();
            answer.notify_one();
            assert_eq!(&*ask().await.expect("a new answer"), [address]);
            assert_eq!(asked.get(), 2);

            let fixed = Lookup::new(&Endpoint::parse("http://127.0.0.1:81").expect("a plain URL"));
            fixed.forget();
            assert_eq!(&*fixed.addresses().await.expect("itself"), [address]);
        });
    }
}
