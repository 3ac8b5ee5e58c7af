//! Benches of the packet path. `l4` times single packets against a program that does nothing, `live` counts frames that really cross a machine.
//! `control` times changes and checks beside HAProxy, `failover` hand-overs of an address beside keepalived.
//! Each case says what it should come to; a figure above that is marked, and nothing fails: machines differ.

pub mod cases;
pub mod control;
pub mod failover;
pub mod frame;
pub mod harness;
pub mod l4;
pub mod live;
pub mod memory;
pub mod report;
pub mod world;

#[path = "../../../lb-ebpf/src/template.rs"]
mod template;
