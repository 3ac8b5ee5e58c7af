//! Weir's benches: what the packet path costs, and how it compares.

pub mod bench;
