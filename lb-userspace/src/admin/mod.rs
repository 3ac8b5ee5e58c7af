//! The admin API: JSON over HTTP on a Unix socket. The commands of `weir` that need the daemon speak it and nothing else.
//!
//! | file | what |
//! |---|---|
//! | `api` | requests and answers, as both sides know them. Pure |
//! | `openapi` | their description for others. Pure |
//! | `server_io` | the daemon's side: socket, credentials, routes |
//! | `client_io` | the commands' side |

pub mod api;
pub mod client_io;
pub mod openapi;
pub mod server_io;
