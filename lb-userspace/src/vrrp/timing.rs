//! The times that follow from an interval and a priority.

use std::time::Duration;

use super::terms::{Priority, Version};

/// How much longer than three intervals a router waits: the shorter, the higher its priority. `interval` is the active router's.
///
/// Version 3: a part of the interval (RFC 9568 s6.1). Version 2: a part of a second (RFC 3768 s6.1).
#[must_use]
pub fn skew(version: Version, priority: Priority, interval: Duration) -> Duration {
    let whole = match version {
        Version::V2 => Duration::from_secs(1),
        Version::V3 => interval,
    };
    whole * (256 - u32::from(priority.number())) / 256
}

/// The silence after which the active router counts as gone (`Active_Down_Interval`).
#[must_use]
pub fn active_down(version: Version, priority: Priority, interval: Duration) -> Duration {
    3 * interval + skew(version, priority, interval)
}

/// A router that does its work so much later than it should has not listened either, and the others have taken over: the least time that
/// any backup waits.
#[must_use]
pub fn late_after(version: Version, interval: Duration) -> Duration {
    active_down(version, Priority::HIGHEST, interval)
}

/// How long a router that yields waits for another one to take over: three adverts may be lost, and the slowest backup waits a whole skew.
#[must_use]
pub fn yields_for(version: Version, interval: Duration) -> Duration {
    3 * interval + skew(version, Priority::LOWEST, interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_formulas_of_both_versions() {
        let ms = Duration::from_millis;
        let priority = |number| Priority::new(number).unwrap();
        assert_eq!(skew(Version::V3, priority(128), ms(100)), ms(50));
        assert_eq!(skew(Version::V2, priority(128), ms(3000)), ms(500));
        assert_eq!(active_down(Version::V2, priority(192), ms(3000)), ms(9250));
        assert_eq!(active_down(Version::V3, priority(250), ms(10)), Duration::from_nanos(30_234_375));
        assert_eq!(active_down(Version::V3, priority(250), ms(100)), Duration::from_nanos(302_343_750));
        assert_eq!(late_after(Version::V3, ms(256)), ms(3 * 256 + 2));
        assert_eq!(yields_for(Version::V3, ms(256)), ms(3 * 256 + 255));
    }
}
