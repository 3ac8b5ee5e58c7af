//! NAT flows: both directions of a translated flow are one record, found from either side.
//!
//! A flow's place in `NAT_FLOWS` *is* its source port: chunks of 256 consecutive records are given to a plane (SNAT address, server endpoint,
//! protocol), where each serves the 256 ports of one position. The port word beside the record tells who has the port and since when:
//!
//! | bits 63..56 | 55..32 | 31..0 |
//! |---|---|---|
//! | [`PortState`] | generation | time of the last packet, s |
//!
//! Clients are looked up in the directory `NAT_LINES`, words of tag 40 and record 24, which only hint: the record is compared.

use crate::{
    address::Address,
    hash::Hash,
    maps::{NatFlow, NatPlane, Service},
    packet::{protocol, tcp},
    place,
    tables::{Cell, CellLine, Step, Tables},
    words::{ServiceId, Tick},
};

pub mod open;

/// What has become of a source port.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum PortState {
    /// Never used.
    Free = 0,
    /// A flow is being written.
    Claimed = 1,
    /// TCP: the client's SYN was seen. UDP: the client's first datagram.
    Opening = 2,
    /// TCP: the server answered the SYN.
    Answered = 3,
    /// Both sides have been heard.
    Established = 4,
    /// TCP: the client sent its FIN, the server not.
    ClientClosing = 5,
    /// TCP: the server sent its FIN, the client not.
    ServerClosing = 6,
    /// TCP: both sent theirs, the client first, which has the TIME_WAIT; the server may still send its last ones again.
    Closed = 7,
    /// TCP: both sent theirs, the server first: it refuses an early reuse of the port.
    Resting = 8,
    /// TCP: somebody sent a reset. Whether its receiver believed it shows in what follows.
    Reset = 9,
}

/// A word of `NAT_PORTS`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortWord(pub u64);

impl PortWord {
    /// Bits of a generation.
    pub const GENERATION_MASK: u32 = 0xff_ffff;

    /// Packs a word.
    #[inline(always)]
    pub const fn new(state: PortState, generation: u32, time: Tick) -> Self {
        Self((state as u64) << 56 | ((generation & Self::GENERATION_MASK) as u64) << 32 | time as u64)
    }

    /// What has become of the port.
    #[inline(always)]
    pub const fn state(self) -> PortState {
        match (self.0 >> 56) as u8 {
            1 => PortState::Claimed,
            2 => PortState::Opening,
            3 => PortState::Answered,
            4 => PortState::Established,
            5 => PortState::ClientClosing,
            6 => PortState::ServerClosing,
            7 => PortState::Closed,
            8 => PortState::Resting,
            9 => PortState::Reset,
            _ => PortState::Free,
        }
    }

    /// Which use of the port it is.
    #[inline(always)]
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32 & Self::GENERATION_MASK
    }

    /// When its last packet was seen.
    #[inline(always)]
    pub const fn time(self) -> Tick {
        self.0 as Tick
    }

    /// Seconds since then; 0 for a time to come: another CPU may be a tick ahead of the reader, and a reading of all ports takes some.
    #[inline(always)]
    pub const fn idle(self, now: Tick) -> u32 {
        let idle = now.wrapping_sub(self.time());
        if idle > Tick::MAX / 2 { 0 } else { idle }
    }
}

/// Seconds a port rests after a close that the server began: twice Linux's `TCP_TIMEWAIT_LEN` halves, include/net/tcp.h.
pub const TCP_REST_S: u32 = 60;
/// Seconds a port rests after a close that the client began: the server sends its last segments again for so long (RFC 6298 s5.5: five times or so).
pub const CLOSED_REST_S: u32 = 10;
/// Seconds a port rests after a reset: anybody can forge one, and a connection that lives speaks within that time.
pub const RESET_REST_S: u32 = 60;
/// Seconds a UDP port rests after its flow has timed out.
pub const UDP_REST_S: u32 = 30;
/// Seconds after which a SYN without an answer gives up its port.
pub const OPENING_IDLE_S: u32 = 5;
/// Seconds after which a handshake that the client has not completed gives up its port.
pub const ANSWERED_IDLE_S: u32 = 8;

/// Seconds without a packet after which a port in this state may be given to another flow.
#[inline(always)]
pub const fn rest_s(state: PortState, protocol: u8, idle_s: u32) -> u32 {
    let is_udp = protocol == protocol::UDP;
    match state {
        PortState::Free => 0,
        PortState::Claimed => 2,
        PortState::Opening if is_udp => idle_s + UDP_REST_S,
        PortState::Opening => OPENING_IDLE_S,
        PortState::Answered => ANSWERED_IDLE_S,
        PortState::Established if is_udp => idle_s + UDP_REST_S,
        PortState::Established | PortState::ClientClosing | PortState::ServerClosing => idle_s,
        PortState::Resting => TCP_REST_S,
        PortState::Closed => CLOSED_REST_S,
        PortState::Reset => RESET_REST_S,
    }
}

/// Whether the port may be given to another flow.
#[inline(always)]
pub const fn is_reusable(word: PortWord, protocol: u8, idle_s: u32, now: Tick) -> bool {
    match word.state() {
        PortState::Free => true,
        state @ (PortState::Claimed
        | PortState::Opening
        | PortState::Answered
        | PortState::Established
        | PortState::ClientClosing
        | PortState::ServerClosing
        | PortState::Closed
        | PortState::Resting
        | PortState::Reset) => word.idle(now) > rest_s(state, protocol, idle_s),
    }
}

/// How well a port can be done without when none is free, before its time has come: the more, the better; 0 not at all. Ports of flows that have ended
/// come first, the longest rested of them; then handshakes that nobody has gone on with for two seconds, which is what a flood of SYNs leaves.
#[inline(always)]
pub const fn spare(word: PortWord, protocol: u8, idle_s: u32, now: Tick) -> u32 {
    const ENDED: u32 = ANSWERED_IDLE_S + 1;
    const UNANSWERED_S: u32 = 2;
    let idle = word.idle(now);
    match word.state() {
        PortState::Resting | PortState::Closed | PortState::Reset => idle + ENDED,
        PortState::Opening | PortState::Established if protocol == protocol::UDP => {
            if idle > idle_s {
                idle - idle_s + ENDED
            } else {
                0
            }
        }
        PortState::Opening | PortState::Answered => {
            if idle >= UNANSWERED_S {
                idle
            } else {
                0
            }
        }
        PortState::Free | PortState::Claimed | PortState::Established | PortState::ClientClosing | PortState::ServerClosing => 0,
    }
}

/// Who sent a packet of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The client, toward the server.
    Client,
    /// The server, toward the client.
    Server,
}

/// What a TCP packet makes of a flow (RFC 9293 s3.3.2, reduced to who closes first).
#[inline(always)]
pub const fn next_state(state: PortState, side: Side, tcp_flags: u8) -> PortState {
    if tcp_flags & tcp::RST != 0 {
        return if matches!(state, PortState::Closed | PortState::Resting) { state } else { PortState::Reset };
    }
    let fin = tcp_flags & tcp::FIN != 0;
    match (state, side) {
        // Who had believed the reset would have answered with another.
        (PortState::Reset, _) if tcp_flags & tcp::SYN == 0 => after_fin(PortState::Established, side, fin),
        (PortState::Opening, Side::Server) => PortState::Answered,
        (PortState::Answered, Side::Client) if tcp_flags & tcp::SYN == 0 => after_fin(PortState::Established, side, fin),
        (PortState::Established | PortState::ClientClosing | PortState::ServerClosing, _) => after_fin(state, side, fin),
        _ => state,
    }
}

#[inline(always)]
const fn after_fin(state: PortState, side: Side, fin: bool) -> PortState {
    if !fin {
        return state;
    }
    match (state, side) {
        (PortState::Established, Side::Client) => PortState::ClientClosing,
        (PortState::Established, Side::Server) => PortState::ServerClosing,
        (PortState::ClientClosing, Side::Server) => PortState::Closed,
        (PortState::ServerClosing, Side::Client) => PortState::Resting,
        _ => state,
    }
}

/// What a UDP datagram makes of a flow.
#[inline(always)]
pub const fn next_udp_state(state: PortState, side: Side) -> PortState {
    match (state, side) {
        (PortState::Opening, Side::Server) => PortState::Established,
        _ => state,
    }
}

/// The addresses and ports by which a client's packet names its flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClientKey {
    /// The client.
    pub client: Address,
    /// Its port, wire bytes.
    pub client_port: u16,
    /// The port it sent to, wire bytes.
    pub vip_port: u16,
}

/// The addresses and ports by which a server's packet names its flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ServerKey {
    /// The server.
    pub server: Address,
    /// Its port, wire bytes.
    pub server_port: u16,
    /// Where it answers to.
    pub snat: Address,
    /// The port it answers to, wire bytes.
    pub snat_port: u16,
    /// 6 or 17.
    pub protocol: u8,
}

/// A flow that was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    /// Its record in `NAT_FLOWS`.
    pub index: u32,
    /// Its port word as it was read.
    pub word: PortWord,
}

/// The bits of a directory word that tell flows apart.
#[inline(always)]
const fn tag_of(hash: Hash) -> u64 {
    (hash.tag as u64) << 8 | (hash.index >> 24) as u64
}

const INDEX_MASK: u64 = 0xff_ffff;

/// The port word of a record.
#[inline(always)]
fn port_cell<T: Tables>(tables: &T, index: u32) -> Option<&T::Cell> {
    let line = tables.nat_port_line(index >> 3)?;
    line.get((index & 7) as usize)
}

/// Where a client's flow lies in the directory.
#[inline(always)]
pub fn client_hash<T: Tables>(tables: &T, service: &Service, key: &ClientKey) -> Hash {
    let ports = crate::packet::ports_word(key.client_port, key.vip_port);
    place::flow(&key.client, ports, service, tables.table_key())
}

/// The flow of a client's packet.
#[inline(always)]
pub fn find_client<'t, T: Tables>(tables: &'t T, service: &Service, key: &ClientKey, hash: Hash) -> Option<(Found, T::Ref<'t, NatFlow>)> {
    let mask = tables.setting(|s| &s.nat_mask);
    let tag = tag_of(hash);
    if let Some(found) = find_in(tables, tables.nat_line(place::first_line(hash, mask))?, tag, service, key) {
        return Some(found);
    }
    find_in(tables, tables.nat_line(place::second_line(hash, mask))?, tag, service, key)
}

#[inline(always)]
fn find_in<'t, T: Tables>(
    tables: &'t T,
    line: &CellLine<T::Cell>,
    tag: u64,
    service: &Service,
    key: &ClientKey,
) -> Option<(Found, T::Ref<'t, NatFlow>)> {
    let mut candidate = 0;
    for cell in line {
        let word = cell.load();
        if word >> 24 == tag && word != 0 {
            candidate = word;
            break;
        }
    }
    if candidate == 0 {
        return None;
    }
    let index = (candidate & INDEX_MASK) as u32;
    let word = PortWord(port_cell(tables, index)?.load());
    let flow = tables.nat_flow(index)?;
    let is_same = flow.client == key.client
        && flow.client_port == key.client_port
        && flow.vip_port == key.vip_port
        && flow.service == service.id
        && flow.generation == word.generation()
        && word.state() > PortState::Claimed;
    if !is_same {
        return None;
    }
    tables.trace(Step::NatFlow(index));
    Some((Found { index, word }, flow))
}

/// The plane of an endpoint, and the record that its port has in it.
#[inline(always)]
fn record_of<T: Tables>(tables: &T, plane: u16, snat_port: u16) -> Option<u32> {
    let port = u16::from_be(snat_port);
    let chunk = tables.nat_chunk(plane, (port >> 8) as u8)?.load();
    if chunk == 0 || chunk >= crate::maps::CHUNK_PENDING {
        return None;
    }
    Some(((chunk - 1) as u32) << 8 | (port & 0xff) as u32)
}

/// The plane of an endpoint; 0 for none.
#[inline(always)]
fn find_plane<T: Tables>(tables: &T, key: &ServerKey, server_port: u16) -> u16 {
    let hash = place::endpoint(&key.server, &key.snat, server_port, key.protocol, tables.table_key());
    let Some(line) = tables.nat_endpoint_line(hash.index & tables.setting(|s| &s.endpoint_mask)) else { return 0 };
    for cell in line {
        let word = cell.load();
        if (word >> 32) as u32 == hash.tag && word != 0 {
            return word as u16;
        }
    }
    0
}

/// The flow of a server's packet to a SNAT address: of the plane of its port, or of the plane of all ports, which have no port in common.
#[inline(always)]
pub fn find_server<'t, T: Tables>(tables: &'t T, key: &ServerKey) -> Option<(Found, T::Ref<'t, NatFlow>)> {
    if let Some(found) = find_in_plane(tables, key, find_plane(tables, key, key.server_port)) {
        return Some(found);
    }
    find_in_plane(tables, key, find_plane(tables, key, 0))
}

#[inline(always)]
fn find_in_plane<'t, T: Tables>(tables: &'t T, key: &ServerKey, plane: u16) -> Option<(Found, T::Ref<'t, NatFlow>)> {
    if plane == 0 {
        return None;
    }
    let index = record_of(tables, plane, key.snat_port)?;
    let word = PortWord(port_cell(tables, index)?.load());
    let flow = tables.nat_flow(index)?;
    let is_same = flow.server == key.server
        && flow.server_port == key.server_port
        && flow.snat_port == key.snat_port
        && flow.plane == plane
        && flow.generation == word.generation()
        && word.state() > PortState::Claimed;
    if !is_same {
        return None;
    }
    tables.trace(Step::NatFlow(index));
    Some((Found { index, word }, flow))
}

/// Records a packet of a flow in its port word.
#[inline(always)]
pub fn refresh<T: Tables>(tables: &T, found: Found, side: Side, is_tcp: bool, tcp_flags: u8) {
    let now = tables.tick();
    let state = found.word.state();
    let next = if is_tcp { next_state(state, side, tcp_flags) } else { next_udp_state(state, side) };
    // A server goes on answering a SYN whose sender is not there: that keeps no port.
    if next == PortState::Answered && state == PortState::Answered && side == Side::Server {
        return;
    }
    let word = PortWord::new(next, found.word.generation(), now);
    if word == found.word {
        return;
    }
    if let Some(cell) = port_cell(tables, found.index) {
        cell.replace(found.word.0, word.0);
    }
}

/// Whether a SYN or datagram of a found flow opens another instead: after that has ended or timed out. A reset ends nothing that a SYN could begin anew:
/// either may be forged, and if both are not, the server is asked at the same port, which a new flow would have to find free.
#[inline(always)]
pub const fn reopens(found: Found, idle_s: u32, now: Tick) -> bool {
    match found.word.state() {
        PortState::Closed | PortState::Resting => true,
        PortState::Reset => found.word.idle(now) > RESET_REST_S,
        PortState::Free
        | PortState::Claimed
        | PortState::Opening
        | PortState::Answered
        | PortState::Established
        | PortState::ClientClosing
        | PortState::ServerClosing => found.word.idle(now) > idle_s,
    }
}

/// The SNAT address of a flow's plane.
#[inline(always)]
pub fn plane_of<'t, T: Tables>(tables: &'t T, flow: &NatFlow) -> Option<T::Ref<'t, NatPlane>> {
    tables.nat_plane(flow.plane)
}

/// The service of a flow.
#[inline(always)]
pub const fn service_of(flow: &NatFlow) -> ServiceId {
    ServiceId(flow.service)
}

#[cfg(test)]
mod tests;
