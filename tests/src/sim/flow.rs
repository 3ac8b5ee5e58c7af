//! One client's flows, one after another, and when they send which packets.

use lb_common::{
    address::Address,
    packet::{protocol, tcp},
    words::{FlowState, MemberId, Tick},
};

use super::{Micros, SECOND};
use crate::random::Random;

/// A flow, and what the full connection table knows of it.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    /// Its service's number in the farm.
    pub(super) pool: usize,
    pub(super) source: Address,
    pub(super) port: u16,
    first_port: u16,
    idle_s: u32,
    phase: Phase,
    ends_at: Micros,
    /// Seconds between its packets, on average.
    pace_s: f64,
    /// Who has it.
    pub(super) owner: Option<MemberId>,
    /// How often its owner had closed its sessions when it took the flow.
    pub(super) closings: u32,
    /// When its last packet was sent.
    pub(super) last: Tick,
    /// Whether a packet of it found no room in the cache.
    pub(super) met_no_room: bool,
    /// What the cache said of it after its last packet.
    pub(super) remembered: Option<FlowState>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Over,
    Opening,
    Acknowledging,
    Sending,
    Datagrams,
    /// FIN was sent; so many packets are left.
    Closing(u8),
}

/// What a new flow is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spell {
    pub(super) protocol: u8,
}

/// A packet that is sent, and how long it is to the next.
pub(super) struct Sent {
    pub(super) tcp_flags: u8,
    pub(super) wait: Micros,
}

fn micros(seconds: f64) -> Micros {
    (seconds * SECOND as f64) as Micros
}

impl Flow {
    pub(super) fn new(pool: usize, (source, first_port): (Address, u16), idle_s: u32) -> Self {
        Self {
            pool,
            source,
            port: first_port,
            first_port,
            idle_s,
            phase: Phase::Over,
            ends_at: 0,
            pace_s: 0.0,
            owner: None,
            closings: 0,
            last: 0,
            met_no_room: false,
            remembered: None,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    pub(super) fn give_up(&mut self) {
        self.phase = Phase::Over;
    }

    /// A new flow: of seconds to two days, with the addresses and ports of the one before or with others.
    pub(super) fn begin(&mut self, now: Micros, spell: Spell, random: &mut Random) {
        if random.happens(0.6) {
            self.port = self.first_port + random.below(8000) as u16;
            self.owner = None;
        }
        self.ends_at = now + micros(random.log_uniform(1.0, 172_800.0));
        self.pace_s = random.log_uniform(0.5, f64::from(self.idle_s) * 0.9);
        self.phase = if spell.protocol == protocol::UDP { Phase::Datagrams } else { Phase::Opening };
    }

    /// Sends the next packet.
    pub(super) fn step(&mut self, now: Micros, random: &mut Random) -> Sent {
        let round_trip = micros(random.log_uniform(0.001, 0.3));
        let is_due = now >= self.ends_at;
        let (tcp_flags, next, wait) = match self.phase {
            Phase::Over | Phase::Opening => (tcp::SYN, Phase::Acknowledging, round_trip),
            Phase::Acknowledging => (tcp::ACK, Phase::Sending, random.below(50_000)),
            Phase::Sending if is_due => self.end(round_trip, random),
            Phase::Sending => (tcp::ACK | tcp::PSH, Phase::Sending, self.pause(1.0, random)),
            Phase::Datagrams if is_due => (0, Phase::Over, pause_between_flows(random)),
            Phase::Datagrams => (0, Phase::Datagrams, self.pause(1.3, random)),
            Phase::Closing(0) => (tcp::ACK, Phase::Over, pause_between_flows(random)),
            Phase::Closing(left) => (tcp::ACK, Phase::Closing(left - 1), self.pause(1.0, random)),
        };
        self.phase = next;
        Sent { tcp_flags, wait }
    }

    /// FIN and the last acknowledgment, a half-closed connection that goes on, RST, or silence.
    fn end(&self, round_trip: Micros, random: &mut Random) -> (u8, Phase, Micros) {
        match random.below(10) {
            0 => (tcp::ACK, Phase::Over, pause_between_flows(random)),
            1 => (tcp::RST, Phase::Over, pause_between_flows(random)),
            2 => (tcp::FIN | tcp::ACK, Phase::Closing(random.below(20) as u8), self.pause(1.0, random)),
            _ => (tcp::FIN | tcp::ACK, Phase::Closing(0), round_trip),
        }
    }

    /// Time to the next packet, at most so many idle timeouts. Now and then just the longest that keeps a flow alive.
    fn pause(&self, most: f64, random: &mut Random) -> Micros {
        let idle_s = f64::from(self.idle_s);
        if random.happens(0.01) {
            return micros(idle_s);
        }
        micros((self.pace_s * random.log_uniform(0.1, 3.0)).min(idle_s * most))
    }
}

fn pause_between_flows(random: &mut Random) -> Micros {
    micros(random.log_uniform(0.05, 100.0))
}
