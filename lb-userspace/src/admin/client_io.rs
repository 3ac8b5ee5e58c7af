//! The commands' side: one request on one connection.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "connects to the daemon's socket")]

use std::{
    io,
    path::{Path, PathBuf},
    pin::pin,
    time::Duration,
};

use http_body_util::{BodyExt as _, Full};
use hyper::{Method, StatusCode, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

use super::api::{DAEMON_HEADER, Refusal, Request, Since};

/// A plan of a thousand services takes some; a daemon that says nothing for so long is stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens.
    #[error("no daemon listens on {path}\nhint: start it: weir run", path = .path.display())]
    NoDaemon {
        /// The socket.
        path: PathBuf,
        /// The refusal.
        source: io::Error,
    },
    /// The socket lets the user not in.
    #[error("you may not use {path}\nhint: root may, and the members of admin.group", path = .path.display())]
    Denied {
        /// The socket.
        path: PathBuf,
    },
    /// The connection broke.
    #[error("the daemon did not answer")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No answer in time.
    #[error("the daemon has not answered for {} s: it hangs, or is very busy, and may still do what it was asked for", .0.as_secs())]
    Silent(Duration),
    /// It is of a version that has no such request.
    #[error("the daemon does not know `{0}`\nhint: it is of another version than this command")]
    Unknown(&'static str),
    /// The daemon refuses.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl AskError {
    fn broken(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Broken(error.into())
    }
}

/// Asks the daemon that listens at `socket`.
///
/// # Errors
/// [`AskError`].
pub fn ask(socket: &Path, request: &Request) -> Result<Value, AskError> {
    ask_within(socket, request, PATIENCE)
}

/// Asks it, and waits so long for the answer.
///
/// # Errors
/// [`AskError`].
pub fn ask_within(socket: &Path, request: &Request, patience: Duration) -> Result<Value, AskError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AskError::broken)?;
    runtime.block_on(async {
        match tokio::time::timeout(patience, exchange(socket, request)).await {
            Ok(answer) => answer,
            Err(_) => Err(AskError::Silent(patience)),
        }
    })
}

/// Asks for what is answered with a text that is no JSON.
///
/// # Errors
/// [`AskError`].
pub fn ask_text(socket: &Path, request: &Request) -> Result<String, AskError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AskError::broken)?;
    let (status, body) = runtime.block_on(async {
        let asked = send(socket, Method::GET, request.path().1, String::new());
        tokio::time::timeout(PATIENCE, asked).await.unwrap_or(Err(AskError::Silent(PATIENCE)))
    })?;
    if status == StatusCode::OK {
        return String::from_utf8(body.to_vec()).map_err(AskError::broken);
    }
    Err(serde_json::from_slice::<Refusal>(&body).map_or_else(AskError::broken, AskError::from))
}

async fn exchange(socket: &Path, request: &Request) -> Result<Value, AskError> {
    let (method, path) = request.path();
    let path = if let Request::Events(Since { since, .. }) = request { &format!("{path}?since={since}") } else { path };
    let body = request.body().map_err(AskError::broken)?.unwrap_or_default();
    let method = if method == "GET" { Method::GET } else { Method::POST };
    let (status, body) = send(socket, method, path, body).await?;
    let answer: Result<Value, _> = serde_json::from_slice(&body);
    match (status, answer) {
        (StatusCode::OK, Ok(answer)) => Ok(answer),
        (StatusCode::NOT_FOUND, _) => Err(AskError::Unknown(request.path().1)),
        (_, Ok(answer)) => Err(match serde_json::from_value::<Refusal>(answer) {
            Ok(refusal) => refusal.into(),
            Err(error) => AskError::broken(error),
        }),
        (_, Err(error)) => Err(AskError::broken(error)),
    }
}

async fn send(socket: &Path, method: Method, path: &str, body: String) -> Result<(StatusCode, Bytes), AskError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(connect(socket).await?)).await.map_err(AskError::broken)?;
    let request = hyper::Request::builder()
        .method(method)
        .uri(path)
        .header("host", "weir")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(AskError::broken)?;
    let exchanged = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        Ok::<_, hyper::Error>((status, response.into_body().collect().await?.to_bytes()))
    };
    let mut exchanged = pin!(exchanged);
    tokio::select! {
        exchanged = &mut exchanged => exchanged.map_err(AskError::broken),
        // The daemon closed it: what came before that is there to be read, and if that is not the answer, there will be none.
        ended = connection => match ended {
            Ok(()) => exchanged.await.map_err(AskError::broken),
            Err(error) => Err(AskError::broken(error)),
        },
    }
}

async fn connect(socket: &Path) -> Result<UnixStream, AskError> {
    let path = || socket.to_owned();
    UnixStream::connect(socket).await.map_err(|source| {
        let is_denied = source.kind() == io::ErrorKind::PermissionDenied;
        if is_denied { AskError::Denied { path: path() } } else { AskError::NoDaemon { path: path(), source } }
    })
}

/// What is told of a stream of events.
#[derive(Debug)]
pub enum Told<'b> {
    /// The daemon answers.
    Connected,
    /// Some of its bytes.
    Bytes(&'b [u8]),
}

/// How a stream of events ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamEnd {
    /// The daemon ended it, or `tell` did.
    Over,
    /// It is another daemon's than `daemon` was, whose events count from 1: nothing of it was told.
    OtherDaemon,
}

/// Tells each event to `tell` as it happens, until that says to stop or the daemon ends. `daemon` tells one daemon from another; none: whichever it is.
///
/// # Errors
/// [`AskError`].
pub fn follow(
    socket: &Path,
    since: Since,
    daemon: &mut Option<String>,
    mut tell: impl FnMut(Told<'_>) -> io::Result<bool>,
) -> Result<StreamEnd, AskError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AskError::broken)?;
    runtime.block_on(async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(connect(socket).await?)).await.map_err(AskError::broken)?;
        let request = hyper::Request::builder()
            .uri(format!("/v1/events?follow=true&since={}", since.since))
            .header("host", "weir")
            .body(Full::new(Bytes::new()))
            .map_err(AskError::broken)?;
        let followed = async {
            let response = sender.send_request(request).await.map_err(AskError::broken)?;
            let is_good = response.status() == StatusCode::OK;
            let answers = response.headers().get(DAEMON_HEADER).and_then(|header| header.to_str().ok()).map(str::to_owned);
            let mut body = response.into_body();
            if !is_good {
                let body = body.collect().await.map_err(AskError::broken)?.to_bytes();
                return Err(serde_json::from_slice::<Refusal>(&body).map_or_else(AskError::broken, AskError::from));
            }
            if daemon.is_some() && *daemon != answers {
                *daemon = answers;
                return Ok(StreamEnd::OtherDaemon);
            }
            *daemon = answers;
            let mut goes_on = tell(Told::Connected).map_err(AskError::broken)?;
            while let (true, Some(frame)) = (goes_on, body.frame().await) {
                let frame = frame.map_err(AskError::broken)?;
                goes_on = frame.data_ref().map_or(Ok(true), |bytes| tell(Told::Bytes(bytes))).map_err(AskError::broken)?;
            }
            Ok(StreamEnd::Over)
        };
        tokio::pin!(followed);
        tokio::select! {
            followed = &mut followed => followed,
            _ = connection => followed.await,
        }
    })
}
