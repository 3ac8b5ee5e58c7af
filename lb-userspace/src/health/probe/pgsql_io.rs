//! Asks a PostgreSQL server.

use super::{
    Progress,
    kit_io::{Alpn, Kit},
    pgsql::{self, Reply},
    stream_io::Talk,
};
use crate::health::{
    outcome::{Failure, Layer},
    target::Target,
};

/// Starts a session, as far as it goes without a password.
pub(super) async fn run(target: &Target, user: &str, kit: &Kit, progress: &Progress) -> Result<(), Failure> {
    let mut talk = Talk::plain(target, kit, progress).await?;
    if let Some(tls) = &target.tls {
        progress.at(Layer::L6, "no answer to the TLS request");
        talk.send(&pgsql::TLS_REQUEST).await?;
        answer(&mut talk, pgsql::judge_tls_answer).await?;
        talk.received.clear();
        talk = talk.with_tls(tls, target, kit, Alpn::None, progress).await?;
    }
    progress.at(Layer::L7, "no answer to the start-up message");
    talk.send(&pgsql::startup(user)).await?;
    match answer(&mut talk, pgsql::judge_reply).await? {
        Reply::LoggedIn => talk.leave(&pgsql::TERMINATE, target).await,
        // While a password is awaited, only the end of the connection leaves no line in the server's log.
        Reply::Answered => talk.leave(b"", target).await,
    }
    Ok(())
}

async fn answer<T>(talk: &mut Talk, judge: impl Fn(&[u8]) -> Option<Result<T, Failure>>) -> Result<T, Failure> {
    loop {
        if let Some(verdict) = judge(&talk.received) {
            return verdict;
        }
        if talk.receive().await? == 0 {
            return Err(Failure::new(Layer::L7, "server closed the connection without an answer"));
        }
    }
}
