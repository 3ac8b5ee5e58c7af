//! Several routers over a network that loses, delays and parts, in virtual time. Tests only.

mod chaos;
mod handover;
pub(super) mod world;
