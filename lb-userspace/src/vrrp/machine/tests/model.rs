//! What a router's outputs say of it, and what has to be so after every event. The fuzz target `vrrp_router` includes this file.

use super::{BTreeSet, IpAddr, Output, Router, State};

/// A router as its outputs alone tell it.
pub(super) struct Model {
    held: BTreeSet<IpAddr>,
    state: State,
}

impl Default for Model {
    fn default() -> Self {
        Self { held: BTreeSet::new(), state: State::Initialize }
    }
}

impl Model {
    /// As the outputs so far have it.
    pub(super) fn state(&self) -> State {
        self.state
    }

    /// The router starts, and these addresses are on the interface.
    pub(super) fn finds(&mut self, addresses: &[IpAddr]) {
        self.held = addresses.iter().copied().collect();
    }

    /// Takes the outputs of one event, before which the router's state was `before`.
    ///
    /// # Panics
    /// If one of them should not be, or the router is something else than they say.
    pub(super) fn take(&mut self, before: State, outputs: &[Output], router: &Router) {
        let is_news = |output: &&Output| matches!(output, Output::Conflict(..) | Output::ConflictOver(..));
        assert!(outputs.len() - outputs.iter().filter(is_news).count() <= 40, "{outputs:?}");
        let mut is_announced = true;
        for output in outputs {
            match output {
                Output::AddAddresses(addresses) => {
                    assert!(addresses.iter().all(|address| self.held.insert(*address)), "added twice: {outputs:?}");
                    is_announced = false;
                }
                Output::RemoveAddresses(addresses) => {
                    assert!(addresses.iter().all(|address| self.held.remove(address)), "removed what was not there: {outputs:?}");
                }
                Output::Announce(addresses) => {
                    assert!(addresses.iter().all(|address| self.held.contains(address)), "announced what is elsewhere: {outputs:?}");
                    is_announced = true;
                }
                Output::Send { advert, .. } => {
                    assert!(is_announced, "said before it was announced: {outputs:?}");
                    assert!(!advert.addresses.is_empty());
                    assert!(before.holds_addresses() || router.state().holds_addresses(), "{before:?} {outputs:?}");
                    // What says that it is active is said while it has the addresses.
                    assert!(!self.held.is_empty(), "{before:?} {outputs:?}");
                }
                Output::Transition(transition) => {
                    assert_eq!(transition.from, self.state, "{outputs:?}");
                    self.state = transition.to;
                }
                Output::Conflict(..) | Output::ConflictOver(..) => {}
            }
        }
        assert_eq!(self.state, router.state());
        assert_eq!(&self.held, router.held());
        assert_eq!(self.state.holds_addresses(), !self.held.is_empty());
        match self.state {
            State::Active | State::Yielding => assert!(router.addresses().as_slice().iter().all(|address| self.held.contains(address))),
            State::Initialize | State::Fault | State::Backup | State::HeldOver => {}
        }
        let needs_timer = !matches!(self.state, State::Initialize | State::Fault);
        assert_eq!(router.poll_timeout().is_some(), needs_timer);
        let has_faults = !router.faults().is_empty();
        // One that yields ends so.
        assert!(!has_faults || matches!(self.state, State::Initialize | State::Fault | State::Yielding));
        assert!(self.state != State::Fault || has_faults);
    }
}
