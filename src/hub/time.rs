//! What time it is, signed for the device that asks: the one word of the network that raises a device's floor.
//!
//! The hub says what its own clock says, so keep that one synchronised: a device lets itself be moved by at most 400 days
//! in an epoch of the root (`store::time`), and a hub whose clock runs ahead uses them up.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, header};

use crate::clock::Reading;
use crate::keys::SigningKey;
use crate::spool::protocol::TIME_TYPE;
use crate::spool::timestamp::Question;

/// Answers by the hub's clock and key.
#[derive(Debug)]
pub(super) struct Timestamps(SigningKey);

impl Timestamps {
    pub(super) fn new(key: SigningKey) -> Self {
        Self(key)
    }

    /// The answer to a device that is known here.
    pub(super) fn answer(&self, asked: &Question) -> Response<Full<Bytes>> {
        let at = Reading::now().wall_ms.div_euclid(1_000);
        Response::builder()
            .header(header::CONTENT_TYPE, TIME_TYPE)
            .header(header::CACHE_CONTROL, "no-store")
            .body(Full::from(asked.answer(at, &self.0)))
            .expect("the headers are constants")
    }
}
