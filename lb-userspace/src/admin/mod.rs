//! The admin API: JSON over HTTP on a Unix socket. The commands of `weir` speak it and nothing else to the daemon;
//! where none answers, what shows reads the kernel's maps itself.
//!
//! | file | what |
//! |---|---|
//! | `api` | requests, as both sides know them. Pure |
//! | `answer` | their answers. Pure |
//! | `node` | the node as it is, in answers. Pure |
//! | `openapi` | their description for others. Pure |
//! | `admission` | how many connections each user has at once. Pure |
//! | `server_io` | the daemon's side: the socket, and who connects |
//! | `connection_io` | one connection: its times, and whoever is turned away |
//! | `routes_io` | one request: who may make it, its body, its answer |
//! | `client_io` | the commands' side |

pub mod admission;
pub mod answer;
pub mod api;
pub mod client_io;
mod connection_io;
pub mod node;
pub mod openapi;
mod routes_io;
pub mod server_io;
