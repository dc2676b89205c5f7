//! Whatever the clock says, and however it jumps, a request is judged: by admission, throttle and meter as they run.

use std::sync::Arc;

use serde_json::json;
use tidegate::gateway::TimeState;
use tidegate::spool::record::Outcome;

use crate::rig::Terms;
use crate::scene::{RIG, scene};
use crate::upstream::{echo_target, start};

const LAST: i64 = 253_402_300_799;
const CLOCKS: [i64; 10] =
    [0, 59, -1, 1 << 31, 1 << 32, 4_291_747_200, LAST, LAST + 61, i64::MIN / 1_000, i64::MAX / 1_000];

#[test]
fn a_token_is_judged_at_every_clock_and_after_every_jump() {
    let scene = scene(&Terms::to(start(echo_target).address));
    // From the first moment that a token can name to the last.
    let token = RIG.token_claiming(&json!({"iat": 0, "nbf": 0, "exp": LAST}));
    let ask = |state: TimeState| {
        scene.shared.time.store(Arc::new(state));
        let request = format!("GET /petstore/1.0/pet/1 HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\r\n");
        (scene.ask(&request).status, scene.record().outcome)
    };
    let by_floor = |at| if at < LAST + 60 { (200, Outcome::Admitted) } else { (401, Outcome::TokenExpired) };
    let exactly = |at| if at < -61 { (401, Outcome::TokenNotYetValid) } else { by_floor(at) };
    for (before, after) in CLOCKS.iter().flat_map(|a| CLOCKS.map(|b| (*a, b))) {
        assert_eq!(ask(TimeState::floor(before)), by_floor(before), "floor {before}");
        assert_eq!(ask(TimeState::exact(after.saturating_mul(1_000))), exactly(after), "{before}, then {after}");
    }
    scene.end();
}
