//! rate and quota decisions: state and `now` in, decision out; fixed memory; pure.
