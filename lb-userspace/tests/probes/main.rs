//! The probes against servers that are well, sick, slow, silent or lying: real ones where there are some, written here where a server has to misbehave.
//! All of it on the loopback interface, with free ports.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "starts servers, and asks them in real time")]

mod ask;
mod command;
mod fake;
mod grpc;
mod http;
mod http2;
mod mysql;
mod pgsql;
mod real;
mod tcp;
mod tls;
mod udp;
