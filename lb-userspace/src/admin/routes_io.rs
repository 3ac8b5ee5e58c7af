//! One request: who may make it, its body, and its answer, which is JSON whatever it is. What a caller may do is known from the head, so that no body is
//! read of one who may not send it; the few large bodies that are held at once are counted.
#![allow(clippy::disallowed_methods, reason = "waits for bodies")]

use std::{
    error::Error,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Extension, Json, Router,
    body::{Body, Bytes, HttpBody as _},
    extract::{Query, rejection::QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::{MethodRouter, get, post},
};
use futures_util::StreamExt as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use tokio::{
    sync::{Semaphore, SemaphorePermit, broadcast, mpsc, oneshot},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    admission::{Admission, Full, Places, Role},
    answer::IS_ENDING,
    api::{DAEMON_HEADER, Look, Refusal, Request, Since},
    openapi,
    server_io::{Ask, Caller},
};
use crate::control::event::{Event, Events};

/// Streams of events, which last.
const STREAMS: Places = Places { of_role: 32, of_user: 8 };
/// Configurations that callers of one role send at once: each is held until it is answered.
const LARGE_AT_ONCE: usize = 2;
/// Who wants to send one waits so long for its turn.
const TURN_WITHIN: Duration = Duration::from_secs(10);
/// Who is refused may send the rest of its body for so long: an answer is not read by all clients before they have sent what they want to.
const REST_WITHIN: Duration = Duration::from_secs(2);
/// Prometheus's text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How large a request's body may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Size {
    /// Names and numbers.
    Small,
    /// A configuration, which is at most 16 MiB, more with its JSON.
    Large,
}

impl Size {
    const fn most_bytes(self) -> usize {
        match self {
            Self::Small => 64 << 10,
            Self::Large => 20 << 20,
        }
    }

    /// How long it may take.
    const fn within(self) -> Duration {
        match self {
            Self::Small => Duration::from_secs(10),
            Self::Large => Duration::from_secs(30),
        }
    }
}

/// The way to the daemon's loop.
#[derive(Clone)]
pub(super) struct Daemon {
    pub(super) asks: mpsc::Sender<Ask>,
    pub(super) events: broadcast::Sender<Event>,
    /// Tells it from the one before and after it.
    pub(super) name: u64,
    /// Nothing more is told of what happens.
    pub(super) end: CancellationToken,
}

/// What all connections share.
#[derive(Debug)]
pub(super) struct House {
    streams: Arc<Mutex<Admission>>,
    large: [Semaphore; 3],
}

impl Default for House {
    fn default() -> Self {
        Self {
            streams: Arc::new(Mutex::new(Admission::new(STREAMS))),
            large: [Semaphore::new(LARGE_AT_ONCE), Semaphore::new(LARGE_AT_ONCE), Semaphore::new(LARGE_AT_ONCE)],
        }
    }
}

impl House {
    const fn large(&self, role: Role) -> &Semaphore {
        let [of_root, of_admins, of_readers] = &self.large;
        match role {
            Role::Root => of_root,
            Role::Admin => of_admins,
            Role::Reader => of_readers,
        }
    }
}

/// The other end of a connection.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    by: Caller,
    house: Arc<House>,
    /// Whether it follows events, and may pause.
    pub(super) is_following: Arc<AtomicBool>,
}

impl Peer {
    pub(super) fn new(by: Caller, house: Arc<House>) -> Self {
        Self { by, house, is_following: Arc::default() }
    }
}

/// A place that is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    admission: Arc<Mutex<Admission>>,
    role: Role,
    uid: u32,
}

impl Place {
    pub(super) fn take(admission: &Arc<Mutex<Admission>>, Caller { uid, role }: &Caller) -> Result<Self, Full> {
        admission.lock().unwrap_or_else(PoisonError::into_inner).enter(*role, *uid)?;
        Ok(Self { admission: admission.clone(), role: *role, uid: *uid })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.admission.lock().unwrap_or_else(PoisonError::into_inner).leave(self.role, self.uid);
    }
}

pub(super) fn routes(daemon: Daemon) -> Router {
    let look = |request: fn() -> Request| get(async move |daemon, peer| plain(daemon, peer, request()).await);
    Router::new()
        .route("/v1/servers", look(|| Request::Servers))
        .route("/v1/servers/details", look(|| Request::Details))
        .route("/v1/status", look(|| Request::Look(Look::Status)))
        .route("/v1/status/part", taking(Role::Reader, Size::Small, |asked| Request::Look(Look::Part(asked))))
        .route("/v1/flows", taking(Role::Reader, Size::Small, |asked| Request::Look(Look::Flows(asked))))
        .route("/v1/explain", taking(Role::Reader, Size::Small, |asked| Request::Look(Look::Explain(asked))))
        .route("/v1/maps", look(|| Request::Look(Look::Maps)))
        .route("/v1/maps/entries", taking(Role::Reader, Size::Small, |asked| Request::Look(Look::Entries(asked))))
        .route("/v1/overrides", look(|| Request::Overrides))
        .route("/v1/history", look(|| Request::History))
        .route("/v1/diff", taking(Role::Reader, Size::Large, Request::Diff))
        .route("/v1/apply", taking(Role::Admin, Size::Large, Request::Apply))
        .route("/v1/confirm", post(async |daemon, peer| plain(daemon, peer, Request::Confirm).await))
        .route("/v1/rollback", taking(Role::Admin, Size::Small, Request::Rollback))
        .route("/v1/drain", taking(Role::Admin, Size::Small, Request::Drain))
        .route("/v1/maint", taking(Role::Admin, Size::Small, Request::Maint))
        .route("/v1/ready", taking(Role::Admin, Size::Small, Request::Ready))
        .route("/v1/clear", taking(Role::Admin, Size::Small, Request::Clear))
        .route("/v1/weight", taking(Role::Admin, Size::Small, Request::Weight))
        .route("/v1/servers/add", taking(Role::Admin, Size::Small, Request::Add))
        .route("/v1/servers/remove", taking(Role::Admin, Size::Small, Request::Remove))
        .route("/v1/switch", taking(Role::Admin, Size::Small, Request::Switch))
        .route("/v1/limits", look(|| Request::Limits))
        .route("/v1/limit", taking(Role::Admin, Size::Small, Request::Limit))
        .route("/v1/table", taking(Role::Reader, Size::Small, Request::Watched))
        .route("/v1/table/clear", taking(Role::Admin, Size::Small, Request::Forget))
        .route("/v1/vrrp", look(|| Request::Vrrp))
        .route("/v1/vrrp/yield", taking(Role::Admin, Size::Small, Request::VrrpYield))
        .route("/v1/vrrp/ready", taking(Role::Admin, Size::Small, Request::VrrpReady))
        .route("/v1/events", get(events))
        .route("/v1/metrics", get(metrics))
        .route("/v1/openapi.json", get(async || Json(openapi::document()).into_response()))
        .fallback(async || refused(StatusCode::NOT_FOUND, &Refusal::text("there is nothing at this path")))
        .method_not_allowed_fallback(async |request: axum::extract::Request| {
            let (method, path) = (request.method(), request.uri().path());
            let hint = Some("the answer's header `allow` tells which is, `weir api` all of the API".into());
            refused(StatusCode::METHOD_NOT_ALLOWED, &Refusal { hint, ..Refusal::text(format!("{method} is not for {path}")) })
        })
        .layer(Extension(daemon))
}

/// A path whose requests have a body, and are for callers of this role at least.
fn taking<T: DeserializeOwned + Send + 'static>(least: Role, size: Size, request: fn(T) -> Request) -> MethodRouter {
    post(async move |Extension(daemon): Extension<Daemon>, Extension(peer): Extension<Peer>, asked: axum::extract::Request| {
        let mut is_expecting = asked.headers().contains_key(header::EXPECT);
        let mut body = asked.into_body();
        let answer = async {
            if least.is_admin() && !peer.by.role.is_admin() {
                return Err((StatusCode::FORBIDDEN, may_only_look()));
            }
            let _turn = turn(&peer, size).await?;
            is_expecting = false;
            let bytes = whole(&mut body, size).await?;
            // Serde takes a list for a structure.
            if bytes.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|first| *first != b'{') {
                return Err(bad("the request's body is not understood: it is no JSON object".into()));
            }
            let parsed = serde_json::from_slice(if bytes.is_empty() { b"{}" } else { &bytes });
            drop(bytes);
            let asked = parsed.map_err(|error| bad(format!("the request's body is not understood: {error}")))?;
            Ok(ask(&daemon, peer.by.clone(), request(asked)).await)
        };
        match answer.await {
            Ok(answer) => answer,
            Err((status, refusal)) => {
                // Who waits to be asked for its body sends none.
                if !is_expecting {
                    let _ = timeout(REST_WITHIN, forget(body)).await;
                }
                refused(status, &refusal)
            }
        }
    })
}

type Unread = (StatusCode, Refusal);

fn bad(error: String) -> Unread {
    (StatusCode::BAD_REQUEST, Refusal::text(error))
}

fn may_only_look() -> Refusal {
    Refusal { hint: Some("root may, and the users in admin.users".into()), ..Refusal::text("you may look, but change nothing") }
}

/// Leave to hold a body of this size; none is needed for a small one.
async fn turn(peer: &Peer, size: Size) -> Result<Option<SemaphorePermit<'_>>, Unread> {
    match size {
        Size::Small => Ok(None),
        Size::Large => match timeout(TURN_WITHIN, peer.house.large(peer.by.role).acquire()).await {
            Ok(Ok(turn)) => Ok(Some(turn)),
            Ok(Err(_)) | Err(_) => {
                Err((StatusCode::SERVICE_UNAVAILABLE, Refusal::text(format!("{LARGE_AT_ONCE} others are sending a configuration"))))
            }
        },
    }
}

async fn whole(body: &mut Body, size: Size) -> Result<Bytes, Unread> {
    let too_large =
        || (StatusCode::PAYLOAD_TOO_LARGE, Refusal::text(format!("the request's body is larger than {} bytes", size.most_bytes())));
    if body.size_hint().lower() > size.most_bytes() as u64 {
        return Err(too_large());
    }
    match timeout(size.within(), Limited::new(body, size.most_bytes()).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(bad(format!("the request's body is broken: {}", root_cause(&*error)))),
        Err(_) => {
            let words = format!("the request's body did not come within {} s", size.within().as_secs());
            Err((StatusCode::REQUEST_TIMEOUT, Refusal::text(words)))
        }
    }
}

fn root_cause(error: &dyn Error) -> String {
    error.source().map_or_else(|| error.to_string(), root_cause)
}

/// Takes the rest of a body, up to the largest that there is, and keeps none of it.
async fn forget(mut body: Body) {
    let mut left = Size::Large.most_bytes();
    while let Some(Ok(frame)) = body.frame().await {
        let taken = frame.data_ref().map_or(0, Bytes::len);
        let Some(rest) = left.checked_sub(taken) else { return };
        left = rest;
    }
}

async fn plain(Extension(daemon): Extension<Daemon>, Extension(peer): Extension<Peer>, request: Request) -> Response {
    ask(&daemon, peer.by, request).await
}

async fn ask(daemon: &Daemon, by: Caller, request: Request) -> Response {
    match answer(daemon, by, request).await {
        Ok(value) => Json(value).into_response(),
        Err(refusal) => refusal,
    }
}

/// The daemon's answer, or the refusal as it is sent.
async fn answer(daemon: &Daemon, by: Caller, request: Request) -> Result<serde_json::Value, Response> {
    if request.is_change() && !by.role.is_admin() {
        return Err(refused(StatusCode::FORBIDDEN, &may_only_look()));
    }
    let (reply, answer) = oneshot::channel();
    let asked = daemon.asks.send(Ask { request, by, reply }).await;
    match (asked, answer.await) {
        (Ok(()), Ok(Ok(value))) => Ok(value),
        (Ok(()), Ok(Err(refusal))) => Err(refused(StatusCode::CONFLICT, &refusal)),
        (Ok(()) | Err(_), Ok(Ok(_) | Err(_)) | Err(_)) => Err(is_ending()),
    }
}

fn is_ending() -> Response {
    refused(StatusCode::SERVICE_UNAVAILABLE, &Refusal::text(IS_ENDING))
}

fn refused(status: StatusCode, refusal: &Refusal) -> Response {
    (status, Json(refusal)).into_response()
}

/// The daemon answers with the text as a JSON string, as with everything.
async fn metrics(Extension(daemon): Extension<Daemon>, Extension(peer): Extension<Peer>) -> Response {
    match answer(&daemon, peer.by, Request::Metrics).await {
        Ok(serde_json::Value::String(text)) => ([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        Ok(_) => is_ending(),
        Err(refusal) => refusal,
    }
}

/// Those that are kept, as an array; or these and then those to come, a line of JSON each, until the client is gone. One that is too slow misses
/// some, and is told how many.
async fn events(
    Extension(daemon): Extension<Daemon>,
    Extension(peer): Extension<Peer>,
    query: Result<Query<Since>, QueryRejection>,
) -> Response {
    let since = match query {
        Ok(Query(since)) => since,
        Err(error) => {
            let hint = Some("`since` is a number, `follow` true or false".into());
            return refused(StatusCode::BAD_REQUEST, &Refusal { hint, ..Refusal::text(error.body_text()) });
        }
    };
    let name = (DAEMON_HEADER, daemon.name.to_string());
    if !since.follow {
        return ([name], ask(&daemon, peer.by, Request::Events(since)).await).into_response();
    }
    let Ok(place) = Place::take(&peer.house.streams, &peer.by) else {
        let Places { of_role, of_user } = STREAMS;
        let words = format!("no more events are followed for you: a user follows with {of_user} connections, all of a kind with {of_role}");
        return refused(StatusCode::SERVICE_UNAVAILABLE, &Refusal::text(words));
    };
    peer.is_following.store(true, Ordering::Relaxed);
    // Followed before those that are kept are asked for, so that none is missed.
    let following = daemon.events.subscribe();
    let kept: Vec<Event> = match answer(&daemon, peer.by, Request::Events(since)).await {
        Ok(kept) => serde_json::from_value(kept).unwrap_or_default(),
        Err(refusal) => return refusal,
    };
    let told = kept.last().map_or(since.since, |event| event.number);
    let kept = futures_util::stream::iter(kept.into_iter().map(|event| line_of(&event)));
    let lines = futures_util::stream::unfold((following, told, place, daemon.end), async |(mut following, told, place, end)| {
        loop {
            // Cancel safe: an event is taken or stays in its queue.
            let event = tokio::select! {
                biased;
                event = following.recv() => event,
                () = end.cancelled() => return None,
            };
            match event {
                Ok(event) if event.number <= told => {}
                Ok(event) => {
                    let missed = Events::missed(told, &event).map(|missed| line_of(&missed)).transpose();
                    let lines = missed.and_then(|missed| Ok(missed.unwrap_or_default() + &line_of(&event)?));
                    return Some((lines, (following, event.number, place, end)));
                }
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    });
    ([name, (header::CONTENT_TYPE.as_str(), "application/x-ndjson".into())], Body::from_stream(kept.chain(lines))).into_response()
}

fn line_of(event: &Event) -> io::Result<String> {
    serde_json::to_string(event).map(|line| line + "\n").map_err(io::Error::other)
}
