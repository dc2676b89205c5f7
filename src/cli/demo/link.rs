//! The link between the gateway and the hub: a TCP relay that can be cut and restored.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A running relay.
#[derive(Debug)]
pub(super) struct Link {
    /// Where the gateway finds the hub.
    pub(super) address: SocketAddr,
    up: watch::Sender<bool>,
}

impl Link {
    /// Relays from a port of its own to `hub`; stands from the start.
    pub(super) async fn to(hub: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let up = watch::Sender::new(true);
        tokio::spawn(relay(listener, hub, up.subscribe()));
        Ok(Self { address, up })
    }

    /// Drops what goes over the link, and whatever tries to, until [`Link::restore`].
    pub(super) fn cut(&self) {
        self.up.send_replace(false);
    }

    /// Lets connections through again.
    pub(super) fn restore(&self) {
        self.up.send_replace(true);
    }
}

async fn relay(listener: TcpListener, hub: SocketAddr, up: watch::Receiver<bool>) {
    let up = Arc::new(up);
    while let Ok((mut near, _)) = listener.accept().await {
        let mut up = watch::Receiver::clone(&up);
        tokio::spawn(async move {
            if !*up.borrow_and_update() {
                return;
            }
            let Ok(mut far) = TcpStream::connect(hub).await else { return };
            tokio::select! {
                _ = copy_bidirectional(&mut near, &mut far) => {}
                _ = up.wait_for(|up| !up) => {}
            }
        });
    }
}
