//! Routers that change state together, as the two sides of one node. Pure.
//!
//! | a member | the others |
//! |---|---|
//! | would become active, and so would all others that are not | become active with it |
//! | would become active, and another one would not | stay |
//! | gives up its addresses | hand over theirs |
//! | has a fault | have it too, until no member has one of its own |
//!
//! The driver makes the members' routers with [`Claims::WithGroup`](super::settings::Claims::WithGroup), tells the group of a router after each of its events, and does what
//! the group orders until it orders nothing.

use std::{collections::VecDeque, time::Instant};

use super::machine::{FaultCause, Router, State};

/// Which member: its place in the group.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct MemberNumber(pub usize);

/// What a member has to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// Become active.
    Grant,
    /// Hand over.
    Resign,
    /// Stop serving, for another member cannot.
    Fault,
    /// That is over.
    FaultOver,
}

impl Order {
    /// Gives the order to a member's router.
    pub fn give(self, router: &mut Router, now: Instant) {
        match self {
            Self::Grant => router.handle_grant(now),
            Self::Resign => router.handle_resign(now),
            Self::Fault => router.handle_fault(FaultCause::Group, now),
            Self::FaultOver => router.handle_fault_over(FaultCause::Group, now),
        }
    }
}

/// A sync group.
#[derive(Debug)]
pub struct Group {
    members: Vec<Member>,
    outputs: VecDeque<(MemberNumber, Order)>,
}

/// A member as it was seen last.
#[derive(Clone, Copy, Debug)]
struct Member {
    state: State,
    is_claiming: bool,
    has_own_fault: bool,
    is_told_of_fault: bool,
}

impl Member {
    const fn is_serving(&self) -> bool {
        matches!(self.state, State::Active | State::Yielding)
    }
}

impl Group {
    /// Of so many members, none of which has been started.
    #[must_use]
    pub fn new(members: usize) -> Self {
        let member = Member { state: State::Initialize, is_claiming: false, has_own_fault: false, is_told_of_fault: false };
        Self { members: vec![member; members], outputs: VecDeque::new() }
    }

    /// A member's router may have changed.
    pub fn handle_member(&mut self, number: MemberNumber, router: &Router) {
        let Some(member) = self.members.get_mut(number.0) else { return };
        let was_serving = member.is_serving();
        member.state = router.state();
        member.is_claiming = router.is_claiming();
        member.has_own_fault = router.faults().iter().any(|cause| *cause != FaultCause::Group);
        // As the router knows it: a group that was made anew has told nobody yet.
        member.is_told_of_fault = router.faults().contains(&FaultCause::Group);
        let is_serving = member.is_serving();
        if was_serving && !is_serving {
            self.order(Order::Resign, |member| member.is_serving());
        }
        self.spread_faults();
        if self.members.iter().all(|member| member.is_claiming || member.is_serving()) {
            for at in self.order(Order::Grant, |member| member.is_claiming) {
                self.members[at].is_claiming = false;
            }
        }
    }

    /// What a member has to do next.
    pub fn poll_output(&mut self) -> Option<(MemberNumber, Order)> {
        self.outputs.pop_front()
    }

    fn spread_faults(&mut self) {
        for at in 0..self.members.len() {
            let is_elsewhere = self.members.iter().enumerate().any(|(other, member)| other != at && member.has_own_fault);
            if std::mem::replace(&mut self.members[at].is_told_of_fault, is_elsewhere) != is_elsewhere {
                let order = if is_elsewhere { Order::Fault } else { Order::FaultOver };
                self.outputs.push_back((MemberNumber(at), order));
            }
        }
    }

    /// Orders it of all who are so; their places.
    fn order(&mut self, order: Order, who: impl Fn(&Member) -> bool) -> Vec<usize> {
        let places: Vec<usize> = (0..self.members.len()).filter(|at| who(&self.members[*at])).collect();
        self.outputs.extend(places.iter().map(|at| (MemberNumber(*at), order)));
        places
    }
}

#[cfg(test)]
mod tests;
