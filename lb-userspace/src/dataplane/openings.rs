//! Which servers answer new connections, as translation sees it: a look at the ports of NAT, compared with the look before. Off the packets' way.

use std::collections::BTreeMap;

use lb_common::{
    maps::WORDS_PER_LINE,
    nat::{OPENING_IDLE_S, PortState, PortWord},
    packet::protocol,
    words::{MemberId, ServiceId, Tick},
};

use super::{mapped::AccessError, tables::Tables};

/// Lines looked at each time, 262 144 ports: all of them by default, 2 MiB.
const MOST_LINES: u32 = 1 << 15;
/// Looks at the same lines, where there are more, before the next ones are looked at.
const LOOKS: u32 = 10;
/// Records read at a time: more connections than these are a sample of them.
const MOST_RECORDS: usize = 4096;

/// What became of a member's connections between two looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Seen {
    /// Connections that the server had not answered at either look.
    pub unanswered: u32,
    /// Connections that it has answered since the first.
    pub answered: u32,
}

/// The look before.
#[derive(Debug, Default)]
pub struct Openings {
    first: u32,
    looks: u32,
    earlier: Vec<u64>,
}

/// What a port's word and the one before it say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Said {
    Unanswered,
    Answered,
}

impl Openings {
    /// Looks again. Gives what happened since, by member; nothing at the first look.
    ///
    /// # Errors
    /// [`AccessError`] never for tables of the right size.
    pub fn look(&mut self, tables: &Tables, now: Tick) -> Result<BTreeMap<MemberId, Seen>, AccessError> {
        let all = tables.nat_ports.len();
        let count = all.min(MOST_LINES);
        self.looks += 1;
        if count < all && self.looks > LOOKS {
            *self = Self { first: if self.first + count < all { self.first + count } else { 0 }, looks: 0, earlier: Vec::new() };
        }
        let count = count.min(all - self.first.min(all));
        let mut words = Vec::with_capacity(count as usize * WORDS_PER_LINE);
        for line in self.first..self.first + count {
            words.extend(tables.nat_ports.record(line)?);
        }
        let earlier = std::mem::replace(&mut self.earlier, words);
        let changed = earlier.iter().zip(&self.earlier).enumerate();
        let said = changed.filter_map(|(at, (was, is))| Some((at as u32, judge(PortWord(*was), PortWord(*is), now)?)));
        let mut seen: BTreeMap<MemberId, Seen> = BTreeMap::new();
        let mut is_tcp: BTreeMap<u16, bool> = BTreeMap::new();
        for (at, said) in said.take(MOST_RECORDS) {
            let flow = tables.nat_flows.record(self.first * WORDS_PER_LINE as u32 + at)?;
            let Some(member) = MemberId::new(flow.member) else { continue };
            let tcp = match is_tcp.get(&flow.service) {
                Some(tcp) => *tcp,
                None => {
                    let tcp = tables.services.record(u32::from(ServiceId(flow.service).0))?.protocol == protocol::TCP;
                    *is_tcp.entry(flow.service).or_insert(tcp)
                }
            };
            if !tcp {
                continue;
            }
            let seen = seen.entry(member).or_default();
            match said {
                Said::Unanswered => seen.unanswered += 1,
                Said::Answered => seen.answered += 1,
            }
        }
        Ok(seen)
    }
}

/// A reset is neither: anybody may have sent it.
fn judge(was: PortWord, is: PortWord, now: Tick) -> Option<Said> {
    let is_same = was.generation() == is.generation();
    let was_open = matches!(was.state(), PortState::Free | PortState::Claimed | PortState::Opening);
    match is.state() {
        PortState::Opening if is_same && was.state() == PortState::Opening && is.idle(now) < OPENING_IDLE_S => Some(Said::Unanswered),
        PortState::Answered
        | PortState::Established
        | PortState::ClientClosing
        | PortState::ServerClosing
        | PortState::Closed
        | PortState::Resting
            if was_open || !is_same =>
        {
            Some(Said::Answered)
        }
        PortState::Free
        | PortState::Claimed
        | PortState::Opening
        | PortState::Answered
        | PortState::Established
        | PortState::ClientClosing
        | PortState::ServerClosing
        | PortState::Closed
        | PortState::Resting
        | PortState::Reset => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_tells_what_became_of_its_connection() {
        use PortState as S;
        const NOW: Tick = 100;
        let word = |state, generation, idle: Tick| PortWord::new(state, generation, NOW - idle);
        let cases = [
            (word(S::Opening, 1, 1), word(S::Opening, 1, 0), Some(Said::Unanswered)),
            (word(S::Opening, 1, 1), word(S::Opening, 1, OPENING_IDLE_S), None),
            (word(S::Opening, 1, 1), word(S::Opening, 2, 0), None),
            (PortWord(0), word(S::Opening, 1, 0), None),
            (word(S::Opening, 1, 1), word(S::Answered, 1, 0), Some(Said::Answered)),
            (PortWord(0), word(S::Established, 0, 0), Some(Said::Answered)),
            (word(S::Established, 1, 9), word(S::Resting, 2, 0), Some(Said::Answered)),
            (word(S::Established, 1, 9), word(S::Established, 1, 0), None),
            (word(S::Answered, 1, 0), word(S::Established, 1, 0), None),
            (word(S::Opening, 1, 1), word(S::Reset, 1, 0), None),
        ];
        for (was, is, said) in cases {
            assert_eq!(judge(was, is, NOW), said, "{was:?} {is:?}");
        }
    }
}
