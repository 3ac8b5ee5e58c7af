//! Servers that misbehave.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
};

/// Serves one connection after the other with `talk`, until the tests' end.
pub(crate) fn serve(mut talk: impl FnMut(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            talk(stream.unwrap());
        }
    });
    address
}

/// Takes everything, and says nothing.
pub(crate) fn silent() -> SocketAddr {
    serve(until_closed)
}

/// Says this first, whatever it is asked, and then waits.
pub(crate) fn greeting(bytes: impl Into<Vec<u8>>) -> SocketAddr {
    let bytes = bytes.into();
    serve(move |mut stream| {
        let _ = stream.write_all(&bytes);
        until_closed(stream);
    })
}

/// Says these, one after each piece that comes, and closes after the last.
pub(crate) fn answers(all: &[&[u8]]) -> SocketAddr {
    let all: Vec<Vec<u8>> = all.iter().map(|answer| answer.to_vec()).collect();
    serve(move |mut stream| {
        for answer in &all {
            if stream.read(&mut [0; 4096]).unwrap_or(0) == 0 || stream.write_all(answer).is_err() {
                return;
            }
        }
        let _ = stream.shutdown(Shutdown::Write);
        until_closed(stream);
    })
}

/// Says this once it is asked, again and again.
pub(crate) fn endless(head: impl Into<Vec<u8>>, rest: impl Into<Vec<u8>>) -> SocketAddr {
    let (head, rest) = (head.into(), rest.into());
    serve(move |mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        let mut is_open = stream.write_all(&head).is_ok();
        while is_open {
            is_open = stream.write_all(&rest).is_ok();
        }
    })
}

/// Closes at once.
pub(crate) fn closing() -> SocketAddr {
    serve(drop)
}

/// HTTP/2: says `answer`, frames of stream 1, behind its settings, once it is asked. Then it waits, or closes.
pub(crate) fn http2(answer: &[u8], end: End) -> SocketAddr {
    // RFC 9113 s6.5: no settings of its own, and the client's are taken.
    let answer = [b"\0\0\0\x04\0\0\0\0\0\0\0\0\x04\x01\0\0\0\0", answer].concat();
    serve(move |mut stream| {
        let _ = until_asked(&mut stream).and_then(|()| stream.write_all(&answer));
        if end == End::Close {
            let _ = stream.shutdown(Shutdown::Write);
        }
        until_closed(stream);
    })
}

/// What a server does after its answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Wait,
    Close,
}

/// Reads the client's preface and its frames to the first one that asks.
fn until_asked(stream: &mut TcpStream) -> io::Result<()> {
    const HEADERS: u8 = 1;
    stream.read_exact(&mut [0; 24])?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        io::copy(&mut Read::take(&mut *stream, length.into()), &mut io::sink())?;
        if head[3] == HEADERS {
            return Ok(());
        }
    }
}

fn until_closed(mut stream: TcpStream) {
    while stream.read(&mut [0; 4096]).unwrap_or(0) > 0 {}
}
