//! VRRP: who of several nodes holds a set of addresses. Pure: no socket, no clock, no thread.
//!
//! | file | what |
//! |---|---|
//! | `terms` | virtual router ids, priorities, intervals, versions |
//! | `addresses` | the addresses of a virtual router |
//! | `packet`, `checksum` | adverts on the wire, of versions 2 and 3 |
//! | `auth` | adverts with a MAC that cannot be replayed |
//! | `refusal` | why an advert counts for nothing |
//! | `settings`, `timing` | what an operator chooses, and the times that follow |
//! | `machine` | one virtual router on one interface |
//! | `track` | the priority that follows from what is watched |
//! | `group` | routers that change state together |
//!
//! An advert goes through [`packet::router_of`] (which machine is meant), [`auth::Opener::open`] (if it has keys), [`packet::decode`] and
//! [`machine::Router::handle_advert`]; each says with a [`refusal::Refusal`] why it stops there.
//!
//! `RFC 9568` is version 3, `RFC 3768` version 2.

pub mod addresses;
pub mod auth;
mod checksum;
pub mod group;
pub mod machine;
pub mod packet;
pub mod refusal;
pub mod settings;
pub mod terms;
pub mod timing;
pub mod track;

#[cfg(test)]
mod simulation;
