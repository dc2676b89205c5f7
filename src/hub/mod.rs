//! the centre: takes in usage files, gives every record to a sink exactly once.
