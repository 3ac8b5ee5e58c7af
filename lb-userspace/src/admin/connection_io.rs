//! One connection to the socket: how long a client may take, and the answer to one that finds no place.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "reads and writes a connection")]

use std::{
    io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::Router;
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::UnixStream,
    time::{Sleep, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{api::Refusal, routes_io::Peer};

/// From the last answer, or the connection's begin, to the end of the next head.
const HEAD_WITHIN: Duration = Duration::from_secs(15);
/// A client that takes nothing of its answer for so long is given up.
const STALL: Duration = Duration::from_secs(30);
/// The largest head.
const MOST_HEAD_BYTES: usize = 32 << 10;
/// The most header fields of one.
const MOST_FIELDS: usize = 64;
/// Who is turned away has so long to take its answer.
const GOODBYE: Duration = Duration::from_secs(1);

/// Serves a connection to its end; after `end` to that of the answer that is awaited.
pub(super) async fn serve(stream: UnixStream, routes: Router, peer: Peer, end: CancellationToken) {
    let routes = TowerToHyperService::new(routes);
    let stream = Stalling { stream, is_stream_of_events: peer.is_following.clone(), stalled: None };
    let answer = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        routes.call(request)
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN).max_buf_size(MOST_HEAD_BYTES).max_headers(MOST_FIELDS);
    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), answer));
    // Cancel safe: the connection is not dropped, but polled again.
    let served = tokio::select! {
        served = &mut connection => served,
        () = end.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        debug!(%error, "a connection to the admin socket broke");
    }
}

/// Says that there is no place, whatever is asked.
pub(super) async fn turn_away(mut stream: UnixStream, refusal: Refusal) {
    if !brush_off(&stream, &refusal) {
        return;
    }
    let heard = async {
        stream.shutdown().await?;
        // What it asks is taken and forgotten, or its own end would tell it of a broken pipe instead.
        let mut scrap = [0; 4096];
        while stream.read(&mut scrap).await? > 0 {}
        Ok::<_, io::Error>(())
    };
    // It has gone, or is slow: either way nothing is owed to it.
    let _ = timeout(GOODBYE, heard).await;
}

/// The same without waiting for anything. Whether it was said.
pub(super) fn brush_off(stream: &UnixStream, refusal: &Refusal) -> bool {
    let body = serde_json::to_string(refusal).unwrap_or_default();
    let head = "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length:";
    let answer = format!("{head} {}\r\n\r\n{body}", body.len());
    // A connection on which nothing has been written yet has room for so little.
    stream.try_write(answer.as_bytes()).is_ok_and(|written| written == answer.len())
}

/// A connection whose writes fail once the other end has taken nothing for [`STALL`]. One that follows events may pause: its place is counted.
struct Stalling {
    stream: UnixStream,
    is_stream_of_events: Arc<AtomicBool>,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Stalling {
    fn within_time<T>(&mut self, written: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() || self.is_stream_of_events.load(Ordering::Relaxed) {
            self.stalled = None;
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(STALL)));
        if stalled.as_mut().poll(context).is_ready() { Poll::Ready(Err(io::ErrorKind::TimedOut.into())) } else { Poll::Pending }
    }
}

impl AsyncRead for Stalling {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stalling {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.within_time(written, context)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.within_time(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
