//! The daemon's side: the socket, who may do what, and the routes.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "owns the socket and its connections")]

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use axum::{
    Extension, Json, Router,
    body::{Body, Bytes},
    extract::{ConnectInfo, DefaultBodyLimit, Query, connect_info::Connected},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::{get, post},
    serve::IncomingStream,
};
use futures_util::StreamExt as _;
use nix::unistd::{Group, User};
use serde::de::DeserializeOwned;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{broadcast, mpsc, oneshot},
};
use tracing::warn;

use super::{
    api::{Refusal, Request, Since},
    openapi,
};
use crate::control::event::Event;

/// The largest body: a configuration is at most 16 MiB.
const MOST_BODY_BYTES: usize = 20 << 20;

/// Prometheus's text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the daemon is asked, by whom, and where its answer goes.
#[derive(Debug)]
pub struct Ask {
    /// What.
    pub request: Request,
    /// Who.
    pub by: Caller,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Result<serde_json::Value, Refusal>>,
}

/// Who asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller {
    /// The user's number.
    pub uid: u32,
    /// Whether it may change something.
    pub is_admin: bool,
}

/// Who may do what.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Access {
    /// The group that the socket belongs to; none: root's.
    pub group: Option<String>,
    /// Users beside root who may change something.
    pub admins: Vec<String>,
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody listens there.
    #[error("another daemon listens on {}", .0.display())]
    Taken(PathBuf),
    /// Something else is there.
    #[error("{} is there and no socket", .0.display())]
    NoSocket(PathBuf),
    /// There is no such group or user.
    #[error("there is no {kind} {name:?}\nhint: see [admin] in the configuration")]
    Unknown {
        /// `group` or `user`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The system refuses.
    #[error("failed to listen on {path}", path = .path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// The refusal.
        source: io::Error,
    },
}

/// The socket, which is removed with it.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    admins: Vec<u32>,
}

/// Removes the socket's file.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl Socket {
    /// Listens at `path`, in place of a socket that nobody listens on any more. Mode 0660.
    ///
    /// # Errors
    /// [`ListenError`].
    pub fn listen(path: &Path, access: &Access) -> Result<Self, ListenError> {
        let refused = |source| ListenError::Io { path: path.to_owned(), source };
        let group = access.group.as_deref().map(group_number).transpose()?;
        let admins = access.admins.iter().map(|name| user_number(name)).collect::<Result<_, _>>()?;
        if let Ok(found) = fs::symlink_metadata(path) {
            if !found.file_type().is_socket() {
                return Err(ListenError::NoSocket(path.to_owned()));
            }
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(ListenError::Taken(path.to_owned()));
            }
            fs::remove_file(path).map_err(refused)?;
        }
        // Nobody gets in between the socket's making and its mode: that of its folder's other files, and the mask, are not relied on.
        let fresh = path.with_extension("new");
        let _ = fs::remove_file(&fresh);
        let listener = UnixListener::bind(&fresh).map_err(refused)?;
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o660)).map_err(refused)?;
        if let Some(group) = group {
            std::os::unix::fs::chown(&fresh, None, Some(group)).map_err(refused)?;
        }
        fs::rename(&fresh, path).map_err(refused)?;
        Ok(Self { listener, path: path.to_owned(), admins })
    }

    /// Answers until the future is dropped. Requests go to `asks`, events come from `events`.
    pub async fn serve(self, asks: mpsc::Sender<Ask>, events: broadcast::Sender<Event>) -> io::Result<()> {
        let _file = SocketFile(self.path);
        let daemon = Daemon { asks, events };
        let app = routes().layer(Extension(daemon)).layer(DefaultBodyLimit::max(MOST_BODY_BYTES));
        let service = app.into_make_service_with_connect_info::<Caller>();
        axum::serve(Listening { listener: self.listener, admins: self.admins }, service).await
    }
}

fn group_number(name: &str) -> Result<u32, ListenError> {
    let unknown = || ListenError::Unknown { kind: "group", name: name.to_owned() };
    Ok(Group::from_name(name).ok().flatten().ok_or_else(unknown)?.gid.as_raw())
}

fn user_number(name: &str) -> Result<u32, ListenError> {
    let unknown = || ListenError::Unknown { kind: "user", name: name.to_owned() };
    Ok(User::from_name(name).ok().flatten().ok_or_else(unknown)?.uid.as_raw())
}

/// The listening socket, which knows who connects.
struct Listening {
    listener: UnixListener,
    admins: Vec<u32>,
}

impl axum::serve::Listener for Listening {
    type Io = UnixStream;
    type Addr = Caller;

    async fn accept(&mut self) -> (UnixStream, Caller) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => match stream.peer_cred() {
                    Ok(peer) => {
                        let uid = peer.uid();
                        let is_own = uid == rustix::process::getuid().as_raw();
                        return (stream, Caller { uid, is_admin: uid == 0 || is_own || self.admins.contains(&uid) });
                    }
                    Err(error) => warn!(%error, "somebody unknown was not let in by the admin socket"),
                },
                Err(error) => {
                    // Out of descriptors, most likely: others are given the time to close theirs.
                    warn!(%error, "the admin socket lets nobody in");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Caller> {
        Ok(Caller { uid: 0, is_admin: false })
    }
}

const PAUSE: Duration = Duration::from_millis(100);

impl Connected<IncomingStream<'_, Listening>> for Caller {
    fn connect_info(stream: IncomingStream<'_, Listening>) -> Self {
        stream.remote_addr().clone()
    }
}

/// The way to the daemon's loop.
#[derive(Clone)]
struct Daemon {
    asks: mpsc::Sender<Ask>,
    events: broadcast::Sender<Event>,
}

type Connection = ConnectInfo<Caller>;

fn routes() -> Router {
    Router::new()
        .route("/v1/servers", get(|daemon, by| plain(daemon, by, Request::Servers)))
        .route("/v1/servers/details", get(|daemon, by| plain(daemon, by, Request::Details)))
        .route("/v1/overrides", get(|daemon, by| plain(daemon, by, Request::Overrides)))
        .route("/v1/history", get(|daemon, by| plain(daemon, by, Request::History)))
        .route("/v1/diff", post(|daemon, by, body| with_body(daemon, by, body, Request::Diff)))
        .route("/v1/apply", post(|daemon, by, body| with_body(daemon, by, body, Request::Apply)))
        .route("/v1/confirm", post(|daemon, by| plain(daemon, by, Request::Confirm)))
        .route("/v1/rollback", post(|daemon, by, body| with_body(daemon, by, body, Request::Rollback)))
        .route("/v1/drain", post(|daemon, by, body| with_body(daemon, by, body, Request::Drain)))
        .route("/v1/maint", post(|daemon, by, body| with_body(daemon, by, body, Request::Maint)))
        .route("/v1/ready", post(|daemon, by, body| with_body(daemon, by, body, Request::Ready)))
        .route("/v1/weight", post(|daemon, by, body| with_body(daemon, by, body, Request::Weight)))
        .route("/v1/servers/add", post(|daemon, by, body| with_body(daemon, by, body, Request::Add)))
        .route("/v1/servers/remove", post(|daemon, by, body| with_body(daemon, by, body, Request::Remove)))
        .route("/v1/switch", post(|daemon, by, body| with_body(daemon, by, body, Request::Switch)))
        .route("/v1/events", get(events))
        .route("/v1/metrics", get(metrics))
        .route("/v1/openapi.json", get(document))
        .fallback(|| async { refused(StatusCode::NOT_FOUND, &Refusal::text("there is nothing at this path")) })
}

async fn plain(Extension(daemon): Extension<Daemon>, ConnectInfo(by): Connection, request: Request) -> Response {
    ask(&daemon, by, request).await
}

async fn with_body<T: DeserializeOwned>(
    Extension(daemon): Extension<Daemon>,
    ConnectInfo(by): Connection,
    body: Bytes,
    request: impl FnOnce(T) -> Request,
) -> Response {
    let body: &[u8] = if body.is_empty() { b"{}" } else { &body };
    match serde_json::from_slice(body) {
        Ok(body) => ask(&daemon, by, request(body)).await,
        Err(error) => refused(StatusCode::BAD_REQUEST, &Refusal::text(format!("the request's body is not understood: {error}"))),
    }
}

async fn ask(daemon: &Daemon, by: Caller, request: Request) -> Response {
    if request.is_change() && !by.is_admin {
        let refusal =
            Refusal { hint: Some("root may, and the users in admin.users".into()), ..Refusal::text("you may look, but change nothing") };
        return refused(StatusCode::FORBIDDEN, &refusal);
    }
    let (reply, answer) = oneshot::channel();
    let asked = daemon.asks.send(Ask { request, by, reply }).await;
    match (asked, answer.await) {
        (Ok(()), Ok(Ok(value))) => Json(value).into_response(),
        (Ok(()), Ok(Err(refusal))) => refused(StatusCode::CONFLICT, &refusal),
        (Ok(()) | Err(_), Ok(Ok(_) | Err(_)) | Err(_)) => refused(StatusCode::SERVICE_UNAVAILABLE, &Refusal::text("the daemon is ending")),
    }
}

/// The daemon answers with the text as a JSON string, as with everything.
async fn metrics(Extension(daemon): Extension<Daemon>, ConnectInfo(by): Connection) -> Response {
    let (reply, answer) = oneshot::channel();
    let asked = daemon.asks.send(Ask { request: Request::Metrics, by, reply }).await;
    match (asked, answer.await) {
        (Ok(()), Ok(Ok(serde_json::Value::String(text)))) => ([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        (Ok(()), Ok(Err(refusal))) => refused(StatusCode::CONFLICT, &refusal),
        (Ok(()) | Err(_), Ok(Ok(_) | Err(_)) | Err(_)) => refused(StatusCode::SERVICE_UNAVAILABLE, &Refusal::text("the daemon is ending")),
    }
}

async fn document() -> Response {
    Json(openapi::document()).into_response()
}

fn refused(status: StatusCode, refusal: &Refusal) -> Response {
    (status, Json(refusal)).into_response()
}

/// Those that are kept, as an array; or these and then those to come, a line of JSON each, until the client is gone. One that is too slow misses
/// some, which their numbers show.
async fn events(Extension(daemon): Extension<Daemon>, ConnectInfo(by): Connection, Query(since): Query<Since>) -> Response {
    if !since.follow {
        return ask(&daemon, by, Request::Events(since)).await;
    }
    // Followed before those that are kept are asked for, so that none is missed.
    let following = daemon.events.subscribe();
    let (reply, answer) = oneshot::channel();
    let asked = daemon.asks.send(Ask { request: Request::Events(since), by, reply }).await;
    let kept: Vec<Event> = match (asked, answer.await) {
        (Ok(()), Ok(Ok(kept))) => serde_json::from_value(kept).unwrap_or_default(),
        (Ok(()) | Err(_), Ok(Ok(_) | Err(_)) | Err(_)) => {
            return refused(StatusCode::SERVICE_UNAVAILABLE, &Refusal::text("the daemon is ending"));
        }
    };
    let told = kept.last().map_or(0, |event| event.number);
    let kept = futures_util::stream::iter(kept.into_iter().map(|event| line_of(&event)));
    let lines = futures_util::stream::unfold(following, move |mut following| async move {
        loop {
            match following.recv().await {
                Ok(event) if event.number <= told => {}
                Ok(event) => return Some((line_of(&event), following)),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(kept.chain(lines))).into_response()
}

fn line_of(event: &Event) -> io::Result<String> {
    serde_json::to_string(event).map(|line| line + "\n").map_err(io::Error::other)
}
