//! Whether servers are well: which checks are due, what their results make of a server, and the probes themselves.
//!
//! | file | what |
//! |---|---|
//! | `outcome` | what a check came to, in words |
//! | `monitor` | when each server is checked, and when it goes up or down. Pure |
//! | `target` | what exactly is asked of which address: from the configuration. Pure |
//! | `silence` | who answers no client. Pure |
//! | `ways` | the numbers of ways through the data path. Pure |
//! | `probe` | one kind of question a file |

pub mod book;
pub mod driver;
pub mod monitor;
pub mod outcome;
pub mod probe;
pub mod silence;
pub mod target;
pub mod ways;
