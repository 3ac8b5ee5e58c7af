//! How many connections, and how many streams of events, the socket has at once, and whose they are: a reader never takes root's place. Pure.

use std::collections::{BTreeMap, BTreeSet};

/// What a caller may do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Role {
    /// Root, and the daemon's own user.
    Root,
    /// A user who may change something.
    Admin,
    /// Whoever else may open the socket.
    Reader,
}

impl Role {
    /// Whether it may change something.
    #[must_use]
    pub const fn is_admin(self) -> bool {
        match self {
            Self::Root | Self::Admin => true,
            Self::Reader => false,
        }
    }
}

/// How many are let in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Places {
    /// Those of each role, which no other takes.
    pub of_role: usize,
    /// Those of each user who is not root.
    pub of_user: usize,
}

/// Who is in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Admission {
    places: Places,
    /// How many each user has.
    taken: BTreeMap<(Role, u32), usize>,
    /// Users who have been turned away since they were let in last.
    turned_away: BTreeSet<u32>,
}

/// Why somebody is not let in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full {
    /// Whether it is the first time since the user was let in.
    pub is_first: bool,
}

impl Admission {
    /// Nobody is in.
    #[must_use]
    pub const fn new(places: Places) -> Self {
        Self { places, taken: BTreeMap::new(), turned_away: BTreeSet::new() }
    }

    /// Lets the user in if it finds a place, which it has until [`Self::leave`].
    ///
    /// # Errors
    /// [`Full`] if the user, or its role, has all its places.
    pub fn enter(&mut self, role: Role, uid: u32) -> Result<(), Full> {
        let of_role: usize = self.taken.iter().filter(|((other, _), _)| *other == role).map(|(_, count)| count).sum();
        let of_user = self.taken.get(&(role, uid)).copied().unwrap_or(0);
        let is_full = of_role >= self.places.of_role || role != Role::Root && of_user >= self.places.of_user;
        if is_full {
            // As many as there are users who may open the socket, at most.
            return Err(Full { is_first: self.turned_away.insert(uid) });
        }
        self.turned_away.remove(&uid);
        *self.taken.entry((role, uid)).or_insert(0) += 1;
        Ok(())
    }

    /// Gives a place back.
    pub fn leave(&mut self, role: Role, uid: u32) {
        let Some(count) = self.taken.get_mut(&(role, uid)) else { return };
        *count -= 1;
        if *count == 0 {
            self.taken.remove(&(role, uid));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Admission, Full, Places, Role};

    const PLACES: Places = Places { of_role: 5, of_user: 3 };

    #[test]
    fn a_user_has_its_share_and_a_role_its_places() {
        let mut admission = Admission::new(PLACES);
        assert_eq!([1, 2, 3, 4].map(|_| admission.enter(Role::Reader, 7).is_ok()), [true, true, true, false]);
        assert_eq!([1, 2, 3].map(|_| admission.enter(Role::Reader, 8).is_ok()), [true, true, false]);
        assert_eq!([1, 2, 3, 4, 5, 6].map(|_| admission.enter(Role::Root, 0).is_ok()), [true, true, true, true, true, false]);
        assert_eq!(admission.enter(Role::Admin, 9), Ok(()));
    }

    #[test]
    fn who_leaves_makes_room_and_being_turned_away_is_told_once() {
        let mut admission = Admission::new(PLACES);
        (0..3).for_each(|_| assert_eq!(admission.enter(Role::Reader, 7), Ok(())));
        assert_eq!(admission.enter(Role::Reader, 7), Err(Full { is_first: true }));
        assert_eq!(admission.enter(Role::Reader, 7), Err(Full { is_first: false }));
        admission.leave(Role::Reader, 7);
        assert_eq!(admission.enter(Role::Reader, 7), Ok(()));
        assert_eq!(admission.enter(Role::Reader, 7), Err(Full { is_first: true }));
        (0..9).for_each(|_| admission.leave(Role::Reader, 7));
        admission.turned_away.clear();
        assert_eq!(admission, Admission::new(PLACES));
    }
}
