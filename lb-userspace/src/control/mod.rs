//! The operations that the data plane performs.

pub mod op;
