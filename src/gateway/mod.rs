//! one HTTP request, in order.
