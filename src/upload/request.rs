//! A device's request to be enrolled, brought to the hub by the uploader's own way: the same pins, the same limits.
//!
//! The hub keeps it for a person, and believes nothing of it. Called by the operator's command on the device.

use serde::Deserialize;

use super::hubs::Hubs;
use super::{Config, Error, Failure, Uplink};
use crate::keys::PublicKey;

/// Why a request is not at the hub.
#[derive(Debug, thiserror::Error)]
pub enum Undelivered {
    /// See [`Error`].
    #[error(transparent)]
    Setting(#[from] Error),
    /// The system gives no runtime.
    #[error("cannot start")]
    Start(#[source] std::io::Error),
    /// See [`Failure`]: look at the link, the address and the pin, and try again.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The hub does not take it, and says why.
    #[error("{name}: {detail}")]
    Refused {
        /// The refusal's name.
        name: String,
        /// What the hub says of it; no control characters.
        detail: String,
    },
}

/// What a hub says where it does not take something (RFC 9457).
#[derive(Deserialize)]
struct Problem {
    title: String,
    detail: String,
}

/// Brings `request`, which the key of `device` signed, to the first hub of `config` that answers. Blocks until it has it.
pub fn deliver(config: &Config, device: &PublicKey, request: Vec<u8>) -> Result<(), Undelivered> {
    let uplink = Uplink::new(config, Box::new(|| None), None)?;
    let centre = Hubs::new(config, &uplink, None)?.ok_or_else(|| Error::BadAddress(String::new()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Undelivered::Start)?;
    runtime.block_on(bring(&centre, device, request))
}

async fn bring(centre: &Hubs, device: &PublicKey, request: Vec<u8>) -> Result<(), Undelivered> {
    let (_, mut connection) = centre.connect_any().await?;
    let answer = connection.request(device, request).await?;
    if answer.status.is_success() {
        return Ok(());
    }
    // Somebody else's words, for a terminal: few, and no control characters.
    let plain = |text: String| text.chars().filter(|c| !c.is_control()).take(200).collect::<String>();
    let Problem { title, detail } = serde_json::from_slice(&answer.body).map_err(|_| Failure::UnexpectedStatus)?;
    Err(Undelivered::Refused { name: plain(title), detail: plain(detail) })
}
