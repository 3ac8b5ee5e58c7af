//! One request over HTTP/2.

use std::{future::pending, io};

use bytes::Bytes;
use h2::{RecvStream, client};
use http::{
    HeaderMap, Response, Uri,
    header::{CONTENT_LENGTH, TE},
};

use super::{
    MOST_BYTES, Progress, fault,
    http::Request,
    quote::{first_line, quote},
    stream_io::Duplex,
};
use crate::health::outcome::{Failure, Layer};

/// The most bytes of an answer's fields.
const MOST_FIELD_BYTES: u32 = 64 * 1024;

/// A request as HTTP/2 has it: its head and its body.
///
/// # Errors
/// Its path is none that HTTP/2 can ask for.
pub(super) fn parts(request: Request, is_within_tls: bool) -> Result<(http::Request<()>, Bytes), Failure> {
    let scheme = if is_within_tls { "https" } else { "http" };
    let has_length = request.has_length();
    let uri = Uri::builder().scheme(scheme).authority(request.authority.as_bytes()).path_and_query(request.path.as_str()).build();
    let uri =
        uri.map_err(|error| Failure::new(Layer::Local, format!("{} cannot be asked for: {error}", quote(request.path.as_bytes()))))?;
    let mut head = http::Request::new(());
    *head.method_mut() = request.method;
    *head.uri_mut() = uri;
    *head.version_mut() = http::Version::HTTP_2;
    *head.headers_mut() = request.fields;
    // RFC 9113 s8.2.2: fields of a connection.
    for name in ["keep-alive", "proxy-connection", "upgrade"] {
        head.headers_mut().remove(name);
    }
    if head.headers().get(TE).is_some_and(|value| value != "trailers") {
        head.headers_mut().remove(TE);
    }
    if has_length {
        head.headers_mut().insert(CONTENT_LENGTH, request.body.len().into());
    }
    Ok((head, request.body.into()))
}

/// Sends a request, and has `judge` look at the answer, whose body is still to be read.
///
/// # Errors
/// Those of `judge`, of the connection, and of what is no HTTP/2.
pub(super) async fn ask(
    stream: Box<dyn Duplex>,
    (head, body): (http::Request<()>, Bytes),
    progress: &Progress,
    judge: impl AsyncFnOnce(Response<RecvStream>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    progress.at(Layer::L7, "no answer to the request");
    let mut builder = client::Builder::new();
    builder.enable_push(false).max_header_list_size(MOST_FIELD_BYTES);
    let (client, connection) = builder.handshake::<_, Bytes>(stream).await.map_err(failure)?;
    let exchange = async {
        let mut client = client.ready().await.map_err(failure)?;
        let (answer, mut sender) = client.send_request(head, body.is_empty()).map_err(failure)?;
        if !body.is_empty() {
            sender.send_data(body, true).map_err(failure)?;
        }
        judge(answer.await.map_err(failure)?).await
    };
    // The connection's end is told to the exchange as well.
    let driven = async {
        let _ = connection.await;
        pending::<()>().await;
    };
    // Both arms are polled by turns until the first has its verdict; nothing is done after either is dropped.
    tokio::select! {
        verdict = exchange => verdict,
        () = driven => Ok(()),
    }
}

/// The body, cut after 64 KiB, and the trailers of a body that is not cut.
///
/// # Errors
/// The connection's.
pub(super) async fn read_body(stream: &mut RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), Failure> {
    let mut body = Vec::new();
    while let Some(piece) = stream.data().await {
        let piece = piece.map_err(failure)?;
        stream.flow_control().release_capacity(piece.len()).map_err(failure)?;
        body.extend_from_slice(&piece);
        if body.len() >= MOST_BYTES {
            body.truncate(MOST_BYTES);
            return Ok((body, None));
        }
    }
    Ok((body, stream.trailers().await.map_err(failure)?))
}

fn failure(error: h2::Error) -> Failure {
    if let Some(error) = error.get_io() {
        // What h2 makes of a connection that ends too early.
        let is_end = matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe) && error.raw_os_error().is_none();
        let closed = "server closed the connection before its answer was whole";
        return if is_end { Failure::new(Layer::L7, closed) } else { fault::socket(error) };
    }
    let text = first_line(error.to_string().as_bytes());
    Failure::new(Layer::L7, if error.is_library() { format!("answer is no HTTP/2: {text}") } else { text })
}
