//! `weir.toml` → typed model with no invalid state. Pure but for `load_io`.

pub mod model;
