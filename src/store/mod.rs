//! Small durable state; with `spool`, the only place that names sled.
//!
//! | file | keeps |
//! |---|---|
//! | `device_key` | the device's own key |
//! | `hardware` | which machine the state folder lives on |
//! | `pair` | any small record: two alternating files, a counter, a check sum; the newer sound one counts |
//! | `time` | the time floor, in such a pair |
//! | `generation` | one sled folder of the spool, the only way to sled |

pub mod device_key;
pub mod generation;
pub mod hardware;
pub mod pair;
pub mod time;
