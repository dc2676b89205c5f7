//! tidegated.toml to one checked Config.
