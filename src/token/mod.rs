//! the strict JWT verifier: bytes in, verdict out; pure.
