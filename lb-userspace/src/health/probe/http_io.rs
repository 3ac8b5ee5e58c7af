//! Carries out HTTP and gRPC checks.

use std::collections::BTreeMap;

use http::{HeaderValue, header};

use super::{
    Progress, grpc, h2_io,
    http::{Expectation, Request},
    http1::{self, Answer, Minor, Verdict},
    kit_io::{Alpn, Kit},
    stream_io::Talk,
};
use crate::{
    config::model::{HttpProbe, HttpVersion},
    health::{
        outcome::{Failure, Layer},
        target::Target,
    },
};

const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;

/// Asks by HTTP, and judges the answer.
pub(super) async fn run(target: &Target, probe: &HttpProbe, kit: &Kit, progress: &Progress) -> Result<(), Failure> {
    let request = Request::new(probe, target.address, target.port, default_port(target))?;
    let matches = probe.matches.as_deref().map(|text| kit.pattern(text)).transpose()?;
    let expectation = Expectation { status: &probe.status, contains: probe.contains.as_deref(), matches };
    match probe.version {
        HttpVersion::Http10 => run_http1(target, &request, Minor::Zero, &expectation, kit, progress).await,
        HttpVersion::Http11 => run_http1(target, &request, Minor::One, &expectation, kit, progress).await,
        HttpVersion::Http2 => {
            let stream = Talk::open(target, kit, Alpn::Http2, progress).await?.into_stream();
            let parts = h2_io::parts(request, target.tls.is_some())?;
            h2_io::ask(stream, parts, progress, async |answer| {
                expectation.judge_status(answer.status().as_u16())?;
                if !expectation.is_of_body() {
                    return Ok(());
                }
                progress.at(Layer::L7, "the answer's body does not end");
                let (body, _) = h2_io::read_body(&mut answer.into_body()).await?;
                expectation.judge_body(&body)
            })
            .await
        }
    }
}

/// Asks the gRPC health service, and judges its answer.
pub(super) async fn run_grpc(target: &Target, service: &str, kit: &Kit, progress: &Progress) -> Result<(), Failure> {
    let probe = HttpProbe {
        method: "POST".to_owned(),
        path: grpc::PATH.to_owned(),
        version: HttpVersion::Http2,
        headers: BTreeMap::new(),
        body: grpc::request(service),
        status: Vec::new(),
        contains: None,
        matches: None,
    };
    let mut request = Request::new(&probe, target.address, target.port, default_port(target))?;
    request.fields.remove(header::ACCEPT);
    request.fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    request.fields.insert(header::TE, HeaderValue::from_static("trailers"));
    let stream = Talk::open(target, kit, Alpn::Http2, progress).await?.into_stream();
    h2_io::ask(stream, h2_io::parts(request, target.tls.is_some())?, progress, async |answer| {
        grpc::judge_head(answer.status().as_u16(), answer.headers())?;
        // An answer that has no message says in its head how the call ended.
        if let Some(ended) = grpc::judge_status(answer.headers()) {
            return ended.and(Err(Failure::new(Layer::L7, "answer has no health message")));
        }
        progress.at(Layer::L7, "the answer does not end");
        let (body, trailers) = h2_io::read_body(&mut answer.into_body()).await?;
        match trailers.as_ref().and_then(grpc::judge_status) {
            Some(ended) => ended.and_then(|()| grpc::judge_message(&body)),
            None => Err(Failure::new(Layer::L7, "answer has no grpc-status")),
        }
    })
    .await
}

async fn run_http1(
    target: &Target,
    request: &Request,
    minor: Minor,
    expectation: &Expectation<'_>,
    kit: &Kit,
    progress: &Progress,
) -> Result<(), Failure> {
    let mut talk = Talk::open(target, kit, Alpn::Http1, progress).await?;
    progress.at(Layer::L7, "no answer to the request");
    // A server may answer, and close, before it has read all of the request: its answer counts.
    let sent = talk.send(&http1::write(request, minor)).await;
    let mut answer = Answer::new(expectation, &request.method);
    loop {
        if talk.receive().await? == 0 {
            return sent.and_then(|()| answer.handle_end());
        }
        let verdict = answer.handle_received(&talk.received)?;
        talk.received.clear();
        match verdict {
            Verdict::Good => return Ok(()),
            Verdict::Await if answer.is_in_body() => progress.at(Layer::L7, "the answer's body does not end"),
            Verdict::Await => {}
        }
    }
}

fn default_port(target: &Target) -> u16 {
    if target.tls.is_some() { HTTPS_PORT } else { HTTP_PORT }
}
