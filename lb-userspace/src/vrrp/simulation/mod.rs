//! Several routers over a network that loses, delays and parts, in virtual time. Tests only.
#![allow(clippy::disallowed_methods, reason = "an instant can be had from the clock alone")]

mod chaos;
mod handover;
pub(super) mod world;
