//! one request's whole verdict; pure.
