//! The spool as a whole: real open logs, a real child process, real kills.
//!
//! The child is this test binary, started again with the name of a test that does nothing unless the
//! environment says so.

mod damage;
mod kill;
mod run;
mod support;
