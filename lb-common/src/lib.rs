//! What both sides of Weir share: the map layout, header parsing, hashes, checksums and the forwarding decision.
//!
//! Nothing here has a clock, a socket, a map or an allocator: tables are reached through [`tables::Tables`], packets through
//! [`packet::Packet`]. The XDP program, the unit tests, the simulator and `weir explain` run this same code.
#![no_std]

pub mod address;
pub mod checksum;
pub mod choose;
pub mod decap;
pub mod decide;
pub mod flows;
pub mod fragments;
pub mod hash;
pub mod maps;
pub mod nat;
pub mod packet;
pub mod place;
pub mod rate;
pub mod reason;
mod settings;
pub mod tables;
pub mod ways;
pub mod words;
