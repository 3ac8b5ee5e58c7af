//! Reads `[dns]`.

use std::net::SocketAddr;

use toml::Spanned;

use super::{
    model::Dns,
    reader::{Table, or, read_all},
    report::{Report, Reported},
    value,
};

const DNS_PORT: u16 = 53;

pub(super) fn read(mut table: Table<'_>, report: &mut Report) -> Result<Dns, Reported> {
    let default = Dns::default();
    let nameservers = table.optional("nameservers", report, |item, report| {
        read_all(&item.elements(report)?, report, |item, report| item.parsed(value::nameserver, report))
    });
    let ttl_min = table.optional("ttl_min", report, |item, report| item.duration(value::ttl, report));
    let ttl_max = table.optional("ttl_max", report, |item, report| item.duration(value::ttl, report));
    let timeout = table.optional("timeout", report, |item, report| item.duration(value::lookup_timeout, report));
    table.finish(report);
    let later = [&ttl_max, &ttl_min].into_iter().find_map(|key| key.as_ref().ok()?.as_ref()).map(Spanned::span);
    let (ttl_min, ttl_max) = (or(ttl_min, default.ttl_min)?, or(ttl_max, default.ttl_max)?);
    if let Some(span) = later.filter(|_| ttl_min > ttl_max) {
        let (least, most) = (humantime::format_duration(ttl_min), humantime::format_duration(ttl_max));
        return Err(report.error(span, format!("dns.ttl_min is {least}, more than dns.ttl_max, which is {most}")));
    }
    let nameserver = |(address, port): (std::net::IpAddr, Option<u16>)| SocketAddr::new(address, port.unwrap_or(DNS_PORT));
    Ok(Dns {
        nameservers: or(nameservers, Vec::new())?.into_iter().map(|spanned| nameserver(spanned.into_inner())).collect(),
        ttl_min,
        ttl_max,
        timeout: or(timeout, default.timeout)?,
    })
}
