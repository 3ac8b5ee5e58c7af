//! A name server that answers from a file, read anew for each question, so that a test changes an answer by writing it.
//!
//! A line is `NAME TTL A|AAAA ADDRESS`, `NAME TTL SRV PRIORITY WEIGHT PORT TARGET`, `NAME servfail` or `NAME silence`. Names that no line has do not exist.

use std::{fs, net::SocketAddr, net::UdpSocket, path::Path};

use anyhow::Context as _;
use hickory_proto::{
    op::{Message, OpCode, Query, ResponseCode},
    rr::{
        Name, RData, Record,
        rdata::{A, AAAA, SRV},
    },
};

use super::udp::BOUND;

const MAX_DATAGRAM_BYTES: usize = 4096;

/// Answers until it is killed.
///
/// # Errors
/// Those of the socket.
pub fn serve(listen: SocketAddr, zone: &Path) -> anyhow::Result<()> {
    let socket = UdpSocket::bind(listen)?;
    eprintln!("{BOUND}");
    let mut buffer = [0; MAX_DATAGRAM_BYTES];
    loop {
        let (length, client) = socket.recv_from(&mut buffer)?;
        // What cannot be understood gets no answer.
        if let Ok(Some(answer)) = answer(&buffer[..length], &fs::read_to_string(zone).unwrap_or_default()) {
            socket.send_to(&answer, client)?;
        }
    }
}

fn answer(question: &[u8], zone: &str) -> anyhow::Result<Option<Vec<u8>>> {
    let asked = Message::from_vec(question)?;
    let query = asked.queries.first().context("no question")?.clone();
    let name = query.name().to_ascii().to_ascii_lowercase();
    let mut message = Message::response(asked.metadata.id, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.metadata.recursion_available = true;
    let mut is_known = false;
    for line in zone.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.first().is_none_or(|first| format!("{first}.") != name) {
            continue;
        }
        is_known = true;
        match words[1..] {
            ["silence"] => return Ok(None),
            ["servfail"] => message.metadata.response_code = ResponseCode::ServFail,
            [ttl, ref data @ ..] => message.answers.extend(record(&query, ttl.parse()?, data)?),
            [] => {}
        }
    }
    if !is_known {
        message.metadata.response_code = ResponseCode::NXDomain;
    }
    message.add_query(query);
    Ok(Some(message.to_vec()?))
}

/// The record, if it is of the kind that is asked for.
fn record(query: &Query, ttl: u32, data: &[&str]) -> anyhow::Result<Option<Record>> {
    let data = match *data {
        ["A", address] => RData::A(A(address.parse()?)),
        ["AAAA", address] => RData::AAAA(AAAA(address.parse()?)),
        ["SRV", priority, weight, port, target] => {
            RData::SRV(SRV::new(priority.parse()?, weight.parse()?, port.parse()?, Name::from_ascii(format!("{target}."))?))
        }
        _ => return Ok(None),
    };
    let record = Record::from_rdata(query.name().clone(), ttl, data);
    Ok((record.record_type() == query.query_type()).then_some(record))
}
