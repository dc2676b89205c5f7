//! Small durable state; with `spool`, the only place that names sled.
//!
//! | file | keeps |
//! |---|---|
//! | `device_key` | the device's own key |
//! | `pair` | any small record: two alternating files, a counter, a CRC; the newer sound one counts |
//! | `time` | the time floor, in such a pair |

pub mod device_key;
pub mod pair;
pub mod time;
