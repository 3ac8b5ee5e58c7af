//! What shows the node asks the daemon. Where none answers, it reads the kernel's maps itself, which root may.
#![allow(clippy::disallowed_methods, reason = "waits for a daemon that makes its socket anew")]

use std::{path::Path, thread::sleep, time::Duration};

use serde::de::DeserializeOwned;

use super::{
    operate::{OperateError, socket_of_place},
    place_io::{Place, PlaceError},
};
use crate::{
    admin::{
        answer::IS_ENDING,
        api::Request,
        client_io::{AskError, ask_within},
    },
    runtime::{
        inspect::{InspectError, Inspector},
        report::{Report, troubles},
    },
    speaker,
};

/// A daemon that is busy answers later than that only with the largest tables; one that hangs is not waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// So often it is asked again, where it does not listen though it runs.
const TRIES: usize = 3;
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Why nothing can be shown.
#[derive(Debug, thiserror::Error)]
pub(super) enum LookError {
    /// Where the node is is not known.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The daemon refuses, or the maps may not be read and it does not answer.
    #[error(transparent)]
    Asked(OperateError),
    /// There is no daemon, and the maps tell nothing.
    #[error(transparent)]
    Inspect(#[from] InspectError),
}

/// What the daemon answers, or what `read` finds in the maps.
///
/// # Errors
/// [`LookError`].
pub(super) fn look<T: DeserializeOwned>(
    config: &Path,
    request: &Request,
    read: impl FnOnce(&Inspector) -> Result<T, InspectError>,
) -> Result<T, LookError> {
    let place = Place::of(config)?;
    match answered(&place, request, PATIENCE) {
        Ok(answer) => Ok(answer),
        Err(unanswered) => read_otherwise(place, unanswered, read),
    }
}

/// What `read` finds in the maps.
///
/// # Errors
/// [`LookError`].
pub(super) fn look_past_daemon<T>(config: &Path, read: impl FnOnce(&Inspector) -> Result<T, InspectError>) -> Result<T, LookError> {
    Ok(read(&inspector(Place::of(config)?))?)
}

fn read_otherwise<T>(
    place: Place,
    unanswered: OperateError,
    read: impl FnOnce(&Inspector) -> Result<T, InspectError>,
) -> Result<T, LookError> {
    if matches!(unanswered, OperateError::Ask(AskError::Refused(_))) {
        return Err(LookError::Asked(unanswered));
    }
    read(&inspector(place)).map_err(|error| if error.is_denied() { LookError::Asked(unanswered) } else { error.into() })
}

/// What the daemon of the node answers within `patience`.
///
/// # Errors
/// [`OperateError`].
pub(super) fn answered<T: DeserializeOwned>(place: &Place, request: &Request, patience: Duration) -> Result<T, OperateError> {
    let socket = socket_of_place(place);
    let answer = again(place, is_passing, || ask_within(&socket, request, patience));
    serde_json::from_value(answer?).map_err(OperateError::Answer)
}

/// Asks, and again where `is_passing` says that it may be otherwise in a moment and the daemon runs.
pub(super) fn again<T>(place: &Place, is_passing: fn(&AskError) -> bool, ask: impl Fn() -> Result<T, AskError>) -> Result<T, AskError> {
    let mut answer = ask();
    for _ in 0..TRIES {
        match &answer {
            Err(error) if is_passing(error) && place.daemon().is_some() => {
                sleep(AGAIN_AFTER);
                answer = ask();
            }
            Ok(_) | Err(_) => break,
        }
    }
    answer
}

/// Whether it may be otherwise in a moment: the daemon makes its socket anew when `[admin]` changes, and when somebody removed it.
fn is_passing(error: &AskError) -> bool {
    match error {
        AskError::NoDaemon { .. } | AskError::Broken(_) => true,
        AskError::Refused(refusal) => refusal.error == IS_ENDING,
        AskError::Denied { .. } | AskError::Silent(_) | AskError::Unknown(_) => false,
    }
}

/// The reader of the node's maps.
pub(super) fn inspector(place: Place) -> Inspector {
    let daemon = place.daemon();
    let mut report = place.report.unwrap_or_default();
    if daemon.is_none() && !report.vrrp.is_empty() {
        follow_speaker(&mut report, &place.state_dir);
    }
    Inspector::new(place.pins, report, daemon)
}

/// Without a daemon the record is as old as its end: the speaker knows how its routers are.
fn follow_speaker(report: &mut Report, state_dir: &Path) {
    if let Some((_, views)) = speaker::visit_io::look(state_dir) {
        (report.vrrp_troubles, report.vrrp) = (troubles(&views), views);
        return;
    }
    report.vrrp.iter_mut().for_each(|view| view.forget("nobody speaks vrrp"));
    report.vrrp_troubles = vec!["nobody speaks vrrp: leased addresses of virtual routers go within seconds".into()];
}
