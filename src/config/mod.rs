//! tidegated.toml, its drop-ins and the TIDEGATE_* environment, made into one checked [`Config`].

mod load;

pub use load::{Problem, Problems};
