//! Connections to servers, with and without TLS, and what comes over them.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "owns the sockets of TCP, and the time of a farewell")]

use std::{io, net::SocketAddr, time::Duration};

use lb_common::packet::protocol;
use rustls::pki_types::ServerName;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{
    Progress, fault,
    kit_io::{Alpn, Kit},
    quote::quote,
    way_io,
};
use crate::{
    config::model::CheckTls,
    health::{
        outcome::{Failure, Layer},
        target::Target,
    },
};

/// How much is read at once.
const READ_BYTES: usize = 4096;
/// The longest time that a farewell may take, after the verdict.
const FAREWELL: Duration = Duration::from_millis(100);

/// Sees whether a connection can be made, and closes it at once. The answer to the server's SYN is the reset: there is nothing that its program has to
/// accept, and neither host has more work than three packets are.
///
/// # Errors
/// The network's, or this machine's.
pub(super) async fn knock(target: &Target, kit: &Kit, progress: &Progress) -> Result<(), Failure> {
    // Who has nothing to say at once leaves its acknowledgement for later (linux v6.18 net/ipv4/tcp_input.c, tcp_rcv_synsent_state_process).
    let is_patient = |socket: SockRef<'_>| socket.set_tcp_quickack(false);
    connect(target, kit, progress, is_patient).await.map(drop)
}

/// A connection, for which the socket is made ready by `prepare`. When it is closed, the server gets a reset: none of the two sides keeps the connection's
/// addresses for a minute (TIME_WAIT), of which there would be too many at thousands of checks a second.
async fn connect(
    target: &Target,
    kit: &Kit,
    progress: &Progress,
    prepare: impl FnOnce(SockRef<'_>) -> io::Result<()>,
) -> Result<TcpStream, Failure> {
    progress.at(Layer::L4, "no answer to the connection");
    let socket = if target.address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.map_err(|error| fault::local("failed to make a socket", &error))?;
    socket.set_zero_linger().map_err(|error| fault::local("failed to set SO_LINGER", &error))?;
    prepare(SockRef::from(&socket)).map_err(|error| fault::local("failed to set an option of TCP", &error))?;
    way_io::prepare(SockRef::from(&socket), target, kit)?;
    let stream = socket.connect(SocketAddr::new(target.address, target.port)).await.map_err(|error| fault::socket(&error))?;
    way_io::confirm(|| stream.local_addr(), target, protocol::TCP, kit)?;
    Ok(stream)
}

/// A connection in both directions, with TLS or without.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Duplex for T {}

/// What is said with a server.
pub(super) struct Talk {
    stream: Box<dyn Duplex>,
    /// What came and was not taken yet.
    pub(super) received: Vec<u8>,
}

impl Talk {
    /// A connection, and TLS if the target asks for it.
    ///
    /// # Errors
    /// Of layer 4, 6, or of this machine.
    pub(super) async fn open(target: &Target, kit: &Kit, alpn: Alpn, progress: &Progress) -> Result<Self, Failure> {
        let talk = Self::plain(target, kit, progress).await?;
        match &target.tls {
            Some(tls) => talk.with_tls(tls, target, kit, alpn, progress).await,
            None => Ok(talk),
        }
    }

    /// A connection without TLS.
    ///
    /// # Errors
    /// Of layer 4, or of this machine.
    pub(super) async fn plain(target: &Target, kit: &Kit, progress: &Progress) -> Result<Self, Failure> {
        let stream = connect(target, kit, progress, |socket| socket.set_tcp_nodelay(true)).await?;
        Ok(Self { stream: Box::new(stream), received: Vec::new() })
    }

    /// Goes on with TLS.
    ///
    /// # Errors
    /// Of layer 6 mostly.
    pub(super) async fn with_tls(
        self,
        tls: &CheckTls,
        target: &Target,
        kit: &Kit,
        alpn: Alpn,
        progress: &Progress,
    ) -> Result<Self, Failure> {
        let config = kit.tls(tls, alpn)?;
        let name = match &tls.sni {
            Some(name) => ServerName::try_from(name.clone())
                .map_err(|error| Failure::new(Layer::Local, format!("{} is no name of a server: {error}", quote(name.as_bytes()))))?,
            None => ServerName::IpAddress(target.address.into()),
        };
        progress.at(Layer::L6, "no answer to the TLS hello");
        let stream = TlsConnector::from(config).connect(name, self.stream).await.map_err(|error| fault::handshake(&error))?;
        if alpn == Alpn::Http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(Failure::new(Layer::L6, "server does not offer h2 by ALPN"));
        }
        Ok(Self { stream: Box::new(stream), received: self.received })
    }

    /// Sends these bytes.
    ///
    /// # Errors
    /// The connection's.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let sent = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        sent.await.map_err(|error| fault::socket(&error))
    }

    /// Reads what comes next to the end of `received`, and returns how many bytes that is: at most 4 KiB or so; 0 when the server has closed.
    ///
    /// # Errors
    /// The connection's.
    pub(super) async fn receive(&mut self) -> Result<usize, Failure> {
        self.received.reserve(READ_BYTES);
        match (&mut self.stream).take(READ_BYTES as u64).read_buf(&mut self.received).await {
            Ok(length) => Ok(length),
            // TLS without its own farewell: those who need to know where a message ends see it from the message.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            Err(error) => Err(fault::socket(&error)),
        }
    }

    /// Ends the talk so that the server does not count it as broken: says `farewell`, or ends our side where the protocol has none, and lets the server
    /// close first. The verdict stands already, so that errors do not matter.
    pub(super) async fn leave(mut self, farewell: &[u8], target: &Target) {
        let left = async {
            if farewell.is_empty() {
                self.stream.shutdown().await?;
            } else {
                self.stream.write_all(farewell).await?;
                self.stream.flush().await?;
            }
            let mut rest = [0; 256];
            while self.stream.read(&mut rest).await? > 0 {}
            io::Result::Ok(())
        };
        let _ = timeout(FAREWELL.min(target.timeout / 4), left).await;
    }

    /// The connection itself.
    pub(super) fn into_stream(self) -> Box<dyn Duplex> {
        self.stream
    }
}
