//! `weir api` and `weir metrics`: the admin API's document, and what is counted.

use std::{
    io::{self, Write},
    path::Path,
};

use super::{
    Exit,
    operate::{OperateError, refuse, socket_of},
};
use crate::admin::{api::Request, client_io::ask_text, openapi};

/// Performs `weir api`. Needs no daemon.
///
/// # Errors
/// Those of writing.
pub fn api(out: &mut impl Write) -> io::Result<Exit> {
    out.write_all(openapi::text()?.as_bytes())?;
    Ok(Exit::Fine)
}

/// Performs `weir metrics`.
///
/// # Errors
/// Those of writing.
pub fn metrics(config: &Path, out: &mut impl Write, err: &mut impl Write) -> io::Result<Exit> {
    let told = socket_of(config).and_then(|socket| Ok::<_, OperateError>(ask_text(&socket, &Request::Metrics)?));
    match told {
        Ok(text) => {
            out.write_all(text.as_bytes())?;
            Ok(Exit::Fine)
        }
        Err(error) => refuse(err, &error),
    }
}
