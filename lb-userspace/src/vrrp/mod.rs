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
//! What a driver owes them:
//! * it reads what waits in the socket before it calls `handle_timeout`, or a busy moment looks like silence;
//! * it does the outputs of a router in their order, each before the next: addresses, then announcements, then adverts;
//! * `now` goes on while the machine sleeps (`CLOCK_BOOTTIME`), or a node that was suspended does not notice;
//! * its own multicast does not come back to it (`IP_MULTICAST_LOOP` off);
//! * a router that stops has ended when its state is [`machine::State::Initialize`].
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
