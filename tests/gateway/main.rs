//! The data plane from outside: raw bytes in, raw bytes out, and one record for every request.

#[allow(dead_code)]
mod rig;
mod scene;
mod upstream;

mod bound;
mod broken;
mod clock;
mod framing;
mod hostile;
mod judged;
mod kept;
mod life;
mod logged;
mod passing;
mod refused;
mod retry;
mod slow;
mod tls;
