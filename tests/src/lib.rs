//! What Weir's end-to-end and packet tests have in common.

pub mod fixture;
