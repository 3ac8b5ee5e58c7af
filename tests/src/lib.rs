//! What Weir's end-to-end and packet tests have in common, and its benches.

pub mod bench;
pub mod fixture;
