//! Who gets which share of the connections: functions of server sets and weights. Pure.

pub mod digest;
pub mod maglev;
