//! What the tests of Weir share.
//!
//! | module | what |
//! |---|---|
//! | `tables` | the packet path's tables in memory: a model of the kernel's maps |
//! | `frames` | frames, byte by byte |
//! | `random` | seeded random numbers |
//! | `sim` | flows, servers and a daemon in virtual time, beside a full connection table |

pub mod frames;
pub mod random;
pub mod sim;
pub mod tables;
