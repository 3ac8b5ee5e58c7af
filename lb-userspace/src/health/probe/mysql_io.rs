//! Asks a MySQL or MariaDB server.
#![allow(clippy::disallowed_methods, reason = "bounds the time of a login that does not matter")]

use std::time::Duration;

use tokio::time::timeout;

use super::{
    Progress,
    kit_io::{Alpn, Kit},
    mysql::{self, Offer, Packet, Reply},
    stream_io::Talk,
};
use crate::health::{
    outcome::{Failure, Layer},
    target::Target,
};

/// The most packets that follow a login.
const MOST_REPLIES: usize = 8;
/// The longest time that a login may take whose answer does not matter.
const NAMELESS_LOGIN: Duration = Duration::from_millis(100);

/// Reads the greeting, and logs in if a user is named.
pub(super) async fn run(target: &Target, user: Option<&str>, kit: &Kit, progress: &Progress) -> Result<(), Failure> {
    let mut talk = Talk::plain(target, kit, progress).await?;
    progress.at(Layer::L7, "no greeting of the server");
    let greeting = packet(&mut talk).await?;
    let offer = mysql::judge_greeting(&greeting.payload)?;
    let mut sequence = greeting.sequence.wrapping_add(1);
    if let Some(tls) = &target.tls {
        match offer {
            Offer::Tls => talk.send(&mysql::tls_request(sequence)).await?,
            Offer::Plain => return Err(Failure::new(Layer::L6, "server offers no TLS")),
        }
        talk = talk.with_tls(tls, target, kit, Alpn::None, progress).await?;
        sequence = sequence.wrapping_add(1);
    }
    let login = mysql::login(user.unwrap_or_default(), sequence, target.tls.is_some());
    if user.is_some() {
        progress.at(Layer::L7, "no answer to the login");
        log_in(&mut talk, &login).await?;
    } else {
        // The greeting was the answer. A connection that ends here is a broken handshake, and max_connect_errors of these in a row make the server
        // block this host; a login that is refused is none of them.
        let _ = timeout(NAMELESS_LOGIN.min(target.timeout / 4), log_in(&mut talk, &login)).await;
    }
    talk.leave(&mysql::QUIT, target).await;
    Ok(())
}

async fn log_in(talk: &mut Talk, login: &[u8]) -> Result<(), Failure> {
    talk.send(login).await?;
    for _ in 0..MOST_REPLIES {
        let reply = packet(talk).await?;
        match mysql::judge_reply(&reply.payload)? {
            Reply::Ok => return Ok(()),
            Reply::Switch(password) => talk.send(&mysql::packet(reply.sequence.wrapping_add(1), password)).await?,
            Reply::More => {}
        }
    }
    Err(Failure::new(Layer::L7, "the login does not end"))
}

async fn packet(talk: &mut Talk) -> Result<Packet, Failure> {
    loop {
        if let Some(packet) = mysql::take_packet(&mut talk.received)? {
            return Ok(packet);
        }
        if talk.receive().await? == 0 {
            return Err(Failure::new(Layer::L7, "server closed the connection"));
        }
    }
}
