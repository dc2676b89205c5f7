//! assembly: builds the parts, starts the tasks, drains them in order.
