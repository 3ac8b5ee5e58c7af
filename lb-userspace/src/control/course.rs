//! How each server came to be what it is: the last changes of its standing, with their causes. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::standing::{ServerName, Why};

/// How many changes of a server are kept.
pub const MOST: usize = 8;

/// A change of a server's standing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Transition {
    /// Milliseconds of the Unix epoch.
    pub at_ms: u64,
    /// What it was; none if it was not known before.
    pub was: Option<Why>,
    /// What it has been since.
    pub is: Why,
    /// What led to it, in words.
    pub cause: Option<String>,
}

/// The courses of all servers.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Courses(BTreeMap<ServerName, Vec<Transition>>);

impl Courses {
    /// Servers are what `standings` says, at `now_ms` milliseconds of the Unix epoch. `cause` says what speaks against a server by its checks, or did last.
    /// What is known of servers that are no more is forgotten.
    pub fn observe<'c>(&mut self, standings: &BTreeMap<ServerName, Why>, cause: impl Fn(&ServerName) -> Option<&'c str>, now_ms: u64) {
        self.0.retain(|name, _| standings.contains_key(name));
        for (name, &is) in standings {
            let course = self.0.entry(name.clone()).or_default();
            let was = course.last().map(|last| last.is);
            if was == Some(is) {
                if let Some(last) = course.last_mut().filter(|last| last.cause.as_deref() == Some(NOT_CHECKED)) {
                    last.cause = in_words(last.was, is, cause(name));
                }
                continue;
            }
            if course.len() == MOST {
                course.remove(0);
            }
            course.push(Transition { at_ms: now_ms, was, is, cause: in_words(was, is, cause(name)) });
        }
    }

    /// The last changes of a server, the oldest first.
    pub fn of(&self, name: &ServerName) -> &[Transition] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }
}

/// The cause of who is taken for down.
const NOT_CHECKED: &str = "it has not been checked yet";

fn in_words(was: Option<Why>, is: Why, failure: Option<&str>) -> Option<String> {
    Some(match is {
        Why::Unhealthy => failure.unwrap_or(NOT_CHECKED).to_owned(),
        Why::Up | Why::SlowStart if was == Some(Why::Unhealthy) => match failure {
            Some(failure) => format!("its checks succeed again, after {failure}"),
            None => "its checks succeed".into(),
        },
        Why::Up if was == Some(Why::SlowStart) => "it has its whole weight again".into(),
        Why::Up if was == Some(Why::Backup) => "no primary server is up".into(),
        Why::Up | Why::SlowStart if matches!(was, Some(Why::DrainedByOperator | Why::Maintenance)) => {
            "the operator has it in use again".into()
        }
        Why::Panic => "too few servers of its pool are up".into(),
        Why::DrainedByOperator | Why::Maintenance => "the operator wants it".into(),
        Why::Drain | Why::Down | Why::WeightZero if was.is_some() => "configuration or operator changed it".into(),
        Why::Up | Why::SlowStart | Why::Backup | Why::Drain | Why::Down | Why::WeightZero => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(courses: &mut Courses, why: Why, at_ms: u64) {
        let standings = [("web/a".parse().unwrap(), why)].into();
        courses.observe(&standings, |_| Some("L4 refused"), at_ms);
    }

    #[test]
    fn changes_are_kept_with_their_causes_and_what_stays_is_none() {
        let mut courses = Courses::default();
        for (why, at_ms) in [(Why::Up, 1), (Why::Up, 2), (Why::Unhealthy, 3), (Why::SlowStart, 4), (Why::Up, 5), (Why::Maintenance, 6)] {
            seen(&mut courses, why, at_ms);
        }
        let told: Vec<(u64, Option<&str>)> =
            courses.of(&"web/a".parse().unwrap()).iter().map(|change| (change.at_ms, change.cause.as_deref())).collect();
        assert_eq!(
            told,
            [
                (1, None),
                (3, Some("L4 refused")),
                (4, Some("its checks succeed again, after L4 refused")),
                (5, Some("it has its whole weight again")),
                (6, Some("the operator wants it")),
            ]
        );
    }

    #[test]
    fn who_was_taken_for_down_is_so_for_its_first_failure() {
        let (mut courses, name) = (Courses::default(), "web/a".parse::<ServerName>().unwrap());
        let standings = [(name.clone(), Why::Unhealthy)].into();
        for (failure, told) in [(None, NOT_CHECKED), (Some("L4 refused"), "L4 refused"), (Some("L4 timeout"), "L4 refused")] {
            courses.observe(&standings, |_| failure, 1);
            assert_eq!(courses.of(&name).iter().map(|change| change.cause.as_deref()).collect::<Vec<_>>(), [Some(told)]);
        }
    }

    #[test]
    fn the_last_eight_changes_of_servers_that_are_there_are_kept() {
        let mut courses = Courses::default();
        for at_ms in 0..20 {
            seen(&mut courses, if at_ms % 2 == 0 { Why::Up } else { Why::Unhealthy }, at_ms);
        }
        let name: ServerName = "web/a".parse().unwrap();
        assert_eq!(courses.of(&name).iter().map(|change| change.at_ms).collect::<Vec<_>>(), (12..20).collect::<Vec<_>>());
        courses.observe(&BTreeMap::new(), |_| None, 21);
        assert_eq!(courses.of(&name), []);
    }
}
