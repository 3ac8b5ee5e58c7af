//! The priority that follows from what is watched: links, pools, the data plane, commands, files.

use thiserror::Error;

use super::terms::Priority;

/// How the state of a watched thing counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Down, it makes the router unable to serve.
    Fault,
    /// It moves the priority.
    Weight(Weight),
}

/// What is added to the priority while the thing is up, if positive; while it is down, if negative.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Weight(i16);

/// A weight that has no effect, or more than there are priorities.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("a weight is -253 to 253, and not 0")]
pub struct WeightError;

impl Weight {
    /// From -253 to 253 without 0.
    ///
    /// # Errors
    /// For any other number.
    pub const fn new(weight: i16) -> Result<Self, WeightError> {
        if weight == 0 || weight.unsigned_abs() > 253 { Err(WeightError) } else { Ok(Self(weight)) }
    }

    /// As it was given.
    #[must_use]
    pub const fn number(self) -> i16 {
        self.0
    }

    const fn when(self, condition: Condition) -> i64 {
        match condition {
            Condition::Up if self.0 > 0 => self.0 as i64,
            Condition::Down if self.0 < 0 => self.0 as i64,
            Condition::Up | Condition::Down => 0,
        }
    }
}

/// Whether a watched thing is well.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Condition {
    /// It is.
    Up,
    /// It is not, or that is not known.
    Down,
}

/// What follows for the router.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It takes part with this priority.
    Fit(Priority),
    /// It cannot serve.
    Faulty,
}

/// What follows from everything that is watched. Weights leave an owner's priority alone, and nobody becomes one by them.
#[must_use]
pub fn standing(base: Priority, watched: impl IntoIterator<Item = (Effect, Condition)>) -> Standing {
    let mut sum = 0;
    for (effect, condition) in watched {
        match (effect, condition) {
            (Effect::Fault, Condition::Down) => return Standing::Faulty,
            (Effect::Fault, Condition::Up) => {}
            (Effect::Weight(weight), condition) => sum += weight.when(condition),
        }
    }
    Standing::Fit(moved(base, sum))
}

/// The least and the greatest priority that the weights can make.
#[must_use]
pub fn reachable(base: Priority, effects: &[Effect]) -> (Priority, Priority) {
    let sum = |is_counted: fn(i16) -> bool| effects.iter().map(|effect| counted(*effect, is_counted)).sum();
    (moved(base, sum(|weight| weight < 0)), moved(base, sum(|weight| weight > 0)))
}

/// Whether the weights can decide who of two is active: whether this router wins against the other's priority for some states of what is
/// watched, and loses or ties for others. If not, the weights do nothing against that router.
#[must_use]
pub fn can_decide(base: Priority, effects: &[Effect], other: Priority) -> bool {
    let (least, most) = reachable(base, effects);
    // Between the two the order against the other changes at most in one direction.
    least.cmp(&other) != most.cmp(&other)
}

fn counted(effect: Effect, is_counted: fn(i16) -> bool) -> i64 {
    match effect {
        Effect::Weight(weight) if is_counted(weight.0) => i64::from(weight.0),
        Effect::Weight(_) | Effect::Fault => 0,
    }
}

fn moved(base: Priority, by: i64) -> Priority {
    if base.is_owner() {
        return base;
    }
    let number = (i64::from(base.number()) + by).clamp(i64::from(Priority::LOWEST.number()), i64::from(Priority::HIGHEST.number()));
    Priority::new(number as u8).unwrap_or(Priority::LOWEST)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn priority(number: u8) -> Priority {
        Priority::new(number).unwrap()
    }

    fn weight(number: i16) -> Effect {
        Effect::Weight(Weight::new(number).unwrap())
    }

    #[test]
    fn weights_move_the_priority_and_faults_end_it() {
        use Condition::{Down, Up};
        let fit = |number| Standing::Fit(priority(number));
        for (base, watched, expected) in [
            (100, vec![], fit(100)),
            (100, vec![(weight(-20), Up)], fit(100)),
            (100, vec![(weight(-20), Down)], fit(80)),
            (100, vec![(weight(20), Up)], fit(120)),
            (100, vec![(weight(20), Down)], fit(100)),
            (100, vec![(weight(20), Up), (weight(-50), Down)], fit(70)),
            (100, vec![(weight(-253), Down)], fit(1)),
            (100, vec![(weight(253), Up)], fit(254)),
            // The sum is cut, not every step.
            (100, vec![(weight(253), Up), (weight(-253), Down)], fit(100)),
            (100, vec![(Effect::Fault, Up), (weight(5), Up)], fit(105)),
            (100, vec![(weight(5), Up), (Effect::Fault, Down)], Standing::Faulty),
            (255, vec![(weight(-50), Down)], fit(255)),
            (255, vec![(Effect::Fault, Down)], Standing::Faulty),
        ] {
            assert_eq!(standing(priority(base), watched.clone()), expected, "{base} {watched:?}");
        }
        assert_eq!([0, 254, -254].map(Weight::new), [Err(WeightError); 3]);
    }

    #[test]
    fn a_weight_that_reaches_no_peer_decides_nothing() {
        let decides = |base, weights: &[i16], other| {
            let effects: Vec<Effect> = weights.iter().map(|number| weight(*number)).collect();
            can_decide(priority(base), &effects, priority(other))
        };
        assert!(decides(150, &[-60], 100));
        assert!(!decides(150, &[-40], 100));
        // As high as the other: the addresses decide.
        assert!(decides(150, &[-50], 100));
        assert!(decides(90, &[20], 100));
        assert!(decides(150, &[-30, -30], 100));
        assert!(!decides(150, &[], 100));
        assert!(!decides(255, &[-253], 100));
        assert!(!decides(150, &[-253], 255));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn deciding_is_what_trying_all_states_finds(
            base in 1..=255_u8,
            weights in prop::collection::vec((-253..=253_i16).prop_filter("none", |weight| *weight != 0), 0..6),
            other in 1..=255_u8,
        ) {
            let effects: Vec<Effect> = weights.iter().map(|number| weight(*number)).collect();
            let orders: std::collections::BTreeSet<_> = (0..1_u32 << effects.len())
                .map(|states| {
                    let condition = |at: usize| if states >> at & 1 == 1 { Condition::Up } else { Condition::Down };
                    let watched = effects.iter().enumerate().map(|(at, effect)| (*effect, condition(at)));
                    match standing(priority(base), watched) {
                        Standing::Fit(own) => own.cmp(&priority(other)),
                        Standing::Faulty => unreachable!("no fault is watched"),
                    }
                })
                .collect();
            prop_assert_eq!(can_decide(priority(base), &effects, priority(other)), orders.len() > 1);
        }
    }
}
