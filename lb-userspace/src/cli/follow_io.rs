//! `weir events --follow`: the events of the daemon, and of the one that is started after it.
#![allow(clippy::disallowed_methods, reason = "waits for the daemon")]

use std::{
    io::{self, Write},
    path::Path,
    thread::sleep,
    time::Duration,
};

use super::{
    Exit,
    operate::{OperateError, refuse, socket_of},
};
use crate::{
    admin::{
        api::Since,
        client_io::{self, AskError, StreamEnd, Told},
    },
    control::event::Event,
};

/// Between two looks whether the daemon is there again.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Shows events after the number `since`, until the output is closed. A daemon that is not there at first is an error; one that ends is waited for.
///
/// # Errors
/// Those of writing.
pub(super) fn follow<O: Write>(
    config: &Path,
    since: u64,
    mut show: impl FnMut(&Event, &mut O) -> io::Result<()>,
    out: &mut O,
    err: &mut impl Write,
) -> io::Result<Exit> {
    let (mut daemon, mut last, mut is_away) = (None, since, false);
    loop {
        let (mut rest, mut unwritten, since) = (Vec::new(), None, Since { since: last, follow: true });
        let take = |told: Told<'_>| {
            let taken = match told {
                Told::Connected if is_away => writeln!(err, "the daemon answers again"),
                Told::Connected => Ok(()),
                Told::Bytes(bytes) => take_lines(bytes, &mut rest, |event| {
                    last = event.number;
                    show(event, out)
                })
                .and_then(|()| out.flush()),
            };
            is_away = false;
            Ok(taken.map_err(|error| unwritten = Some(error)).is_ok())
        };
        let ended = socket_of(config).and_then(|socket| Ok(client_io::follow(&socket, since, &mut daemon, take)?));
        if let Some(error) = unwritten {
            return Err(error);
        }
        match ended {
            Ok(StreamEnd::OtherDaemon) => {
                writeln!(err, "the daemon was started again: its events count from 1, and the last ones of the one before may be missing")?;
                (last, is_away) = (0, false);
                continue;
            }
            Err(error) if daemon.is_none() || matches!(error, OperateError::Ask(AskError::Denied { .. })) => return refuse(err, &error),
            Ok(StreamEnd::Over) | Err(_) if is_away => {}
            Ok(StreamEnd::Over) | Err(_) => {
                writeln!(err, "the daemon does not answer any more: waiting for it")?;
                is_away = true;
            }
        }
        sleep(LOOK_INTERVAL);
    }
}

/// Calls `take` for each whole line; keeps the rest for the next bytes.
fn take_lines(bytes: &[u8], rest: &mut Vec<u8>, mut take: impl FnMut(&Event) -> io::Result<()>) -> io::Result<()> {
    rest.extend_from_slice(bytes);
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line: Vec<u8> = rest.drain(..=end).collect();
        take(&serde_json::from_slice(&line)?)?;
    }
    Ok(())
}
