//! Reads `check` of a pool, and of `[defaults]` what pools inherit of it.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use toml::Spanned;

use super::{
    diagnostic::Span,
    model::{Check, CheckTls, HttpProbe, HttpVersion, Pace, Probe, Step, Via},
    reader::{Item, Key, Table, inherit, or, read_all},
    report::{Report, Reported},
    value::{self, ValueError},
};

const DEFAULT_INTERVAL: Duration = Duration::from_secs(2);
const DEFAULT_RISE: u16 = 2;
const DEFAULT_FALL: u16 = 3;

const VIAS: &[(&str, Via)] = &[("direct", Via::Direct), ("datapath", Via::Datapath)];
const VERSIONS: &[(&str, HttpVersion)] = &[("1.0", HttpVersion::Http10), ("1.1", HttpVersion::Http11), ("2", HttpVersion::Http2)];

/// The keys of `check`.
#[derive(Debug)]
pub(super) struct CheckKeys {
    /// The kinds that are asked for; one at most.
    probes: Vec<Result<Spanned<Probe>, Reported>>,
    tls: Key<Option<CheckTls>>,
    port: Key<u16>,
    via: Key<Via>,
    interval: Key<Duration>,
    interval_unsure: Key<Duration>,
    interval_down: Key<Duration>,
    timeout: Key<Duration>,
    rise: Key<u16>,
    fall: Key<u16>,
    /// `check = false`: none, whatever `[defaults]` say.
    is_off: bool,
}

impl CheckKeys {
    /// Of the table `check`, or `check = true` for a TCP connection, or `check = false` for none.
    pub(super) fn read(parent: &mut Table<'_>, report: &mut Report) -> Self {
        let mut switch = None;
        let mut table = parent.child_or("check", report, |item, report| {
            if item.is_boolean() {
                switch = item.boolean(report).ok().map(|on| (on, item.span.clone()));
            } else {
                let hint = "check = true asks for a TCP connection, check.http = \"GET /healthz\" for an answer";
                report.error_hint(item.span.clone(), format!("`{}` must be true, false or a table", item.path), hint);
            }
        });
        let mut keys = Self::read_table(&mut table, report);
        table.finish(report);
        match switch {
            Some((true, span)) => keys.probes.push(Ok(Spanned::new(span, Probe::Tcp(Vec::new())))),
            Some((false, _)) => keys.is_off = true,
            None => {}
        }
        keys
    }

    fn read_table(table: &mut Table<'_>, report: &mut Report) -> Self {
        let http = read_http(table, report);
        let kinds = [
            http,
            table.optional("tcp", report, read_tcp),
            table.optional("grpc", report, read_grpc),
            table.optional("mysql", report, read_mysql),
            table.optional("pgsql", report, read_pgsql),
            table.optional("udp", report, read_udp),
            table.optional("command", report, read_command),
        ];
        let probes: Vec<_> = kinds.into_iter().filter_map(Result::transpose).collect();
        if let Some(Ok(second)) = probes.iter().filter(|probe| probe.is_ok()).nth(1) {
            report.error_hint(
                second.span(),
                "a check asks one thing, and this is the second",
                "`tls`, `port` and `via` go with any of them",
            );
        }
        Self {
            probes,
            tls: table.optional("tls", report, read_tls),
            port: table.optional("port", report, |item, report| item.short(1..=u16::MAX, report)),
            via: table.optional("via", report, |item, report| item.word(VIAS, report)),
            interval: table.optional("interval", report, |item, report| item.duration(value::check_interval, report)),
            interval_unsure: table.optional("interval_unsure", report, |item, report| item.duration(value::check_interval, report)),
            interval_down: table.optional("interval_down", report, |item, report| item.duration(value::check_interval, report)),
            timeout: table.optional("timeout", report, |item, report| item.duration(value::check_interval, report)),
            rise: table.optional("rise", report, |item, report| item.short(1..=1000, report)),
            fall: table.optional("fall", report, |item, report| item.short(1..=1000, report)),
            is_off: false,
        }
    }

    /// Where a pool's own keys say how a check is made, if neither they nor `defaults` say what is asked.
    pub(super) fn unasked(&self, defaults: &Self) -> Option<Span> {
        let asks = |keys: &Self| !keys.probes.is_empty() || keys.tls.as_ref().is_ok_and(Option::is_some);
        if self.is_off || asks(self) || asks(defaults) {
            return None;
        }
        let paces = [&self.interval, &self.interval_unsure, &self.interval_down, &self.timeout].map(span);
        let counts = [&self.port, &self.rise, &self.fall].map(span);
        paces.into_iter().chain(counts).chain([span(&self.via)]).flatten().min_by_key(|span| span.start)
    }

    pub(super) fn inheriting(self, defaults: &Self) -> Self {
        if self.is_off {
            return self;
        }
        let has_own_kind = !self.probes.is_empty();
        Self {
            probes: if has_own_kind { self.probes } else { defaults.probes.clone() },
            tls: inherit(self.tls, &defaults.tls),
            port: inherit(self.port, &defaults.port),
            via: inherit(self.via, &defaults.via),
            interval: inherit(self.interval, &defaults.interval),
            interval_unsure: inherit(self.interval_unsure, &defaults.interval_unsure),
            interval_down: inherit(self.interval_down, &defaults.interval_down),
            timeout: inherit(self.timeout, &defaults.timeout),
            rise: inherit(self.rise, &defaults.rise),
            fall: inherit(self.fall, &defaults.fall),
            is_off: !has_own_kind && defaults.is_off,
        }
    }

    /// The check, if the keys ask for one. Keys of its pace alone do not: in `[defaults]` they are for the pools that have one.
    pub(super) fn into_model(self) -> Result<Option<Check>, Reported> {
        let tls = or(self.tls, None)?;
        let probe = match (self.probes.into_iter().next(), &tls) {
            _ if self.is_off => return Ok(None),
            (Some(probe), _) => probe?.into_inner(),
            (None, Some(_)) => Probe::Tls,
            (None, None) => return Ok(None),
        };
        let interval = or(self.interval, DEFAULT_INTERVAL)?;
        Ok(Some(Check {
            probe,
            tls,
            port: self.port?.map(Spanned::into_inner),
            via: or(self.via, Via::Direct)?,
            pace: Pace {
                interval,
                // Half of it, so that a silent server is down within `fall` intervals: the last check takes its timeout.
                interval_unsure: or(self.interval_unsure, interval / 2)?,
                interval_down: or(self.interval_down, interval)?,
                timeout: or(self.timeout, interval / 2)?,
                rise: or(self.rise, DEFAULT_RISE)?,
                fall: or(self.fall, DEFAULT_FALL)?,
            },
        }))
    }
}

/// `true`, or the steps of a dialogue.
fn read_tcp(item: &Item<'_>, report: &mut Report) -> Result<Probe, Reported> {
    let Some(items) = item.array() else {
        let hint = "tcp = [{ send = \"PING\\r\\n\" }, { expect = \"+PONG\" }]";
        return read_true(item, hint, report).map(|()| Probe::Tcp(Vec::new()));
    };
    let steps = read_all(&items, report, read_step)?;
    Ok(Probe::Tcp(steps.into_iter().map(Spanned::into_inner).collect()))
}

fn read_true(item: &Item<'_>, hint: &str, report: &mut Report) -> Result<(), Reported> {
    if item.is_boolean() && item.boolean(report)? {
        return Ok(());
    }
    Err(report.error_hint(item.span.clone(), format!("`{}` must be true or say what is asked", item.path), hint))
}

fn read_step(item: &Item<'_>, report: &mut Report) -> Result<Step, Reported> {
    let mut table = item.table(report)?;
    let steps = [
        table.optional("send", report, |item, report| Ok(Step::Send(item.string(report)?.as_bytes().to_vec()))),
        table.optional("send_hex", report, |item, report| Ok(Step::Send(item.parsed(value::hex, report)?))),
        table.optional("expect", report, |item, report| Ok(Step::Expect(item.parsed(value::not_empty, report)?.into_bytes()))),
        table.optional("expect_hex", report, |item, report| Ok(Step::Expect(item.parsed(value::hex, report)?))),
        table.optional("expect_regex", report, |item, report| Ok(Step::ExpectMatch(item.parsed(value::pattern, report)?))),
    ];
    table.finish(report);
    let mut given = steps.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten();
    match (given.next(), given.next()) {
        (Some(step), None) => Ok(step.into_inner()),
        (None | Some(_), None | Some(_)) => {
            let hint = "one of `send`, `send_hex`, `expect`, `expect_hex`, `expect_regex`";
            Err(report.error_hint(item.span.clone(), "a step does one thing", hint))
        }
    }
}

/// `http = "GET /healthz"` and the keys that belong to it.
fn read_http(table: &mut Table<'_>, report: &mut Report) -> Key<Probe> {
    let request = table.optional("http", report, |item, report| item.parsed(value::request_line, report));
    let version = table.optional("version", report, |item, report| item.word(VERSIONS, report));
    let headers = table.strings("headers", report);
    let body = table.optional("body", report, |item, report| Ok(item.string(report)?.as_bytes().to_vec()));
    let mut expect = table.child("expect", report);
    let status = expect.optional("status", report, read_statuses);
    let contains = expect.optional("body", report, |item, report| item.parsed(value::not_empty, report));
    let matches = expect.optional("body_regex", report, |item, report| item.parsed(value::pattern, report));
    expect.finish(report);
    let headers = headers.and_then(|headers| check_headers(headers, report));
    let Some(request) = request? else {
        let strays = [span(&version), span(&headers), span(&body), span(&status), span(&contains), span(&matches)];
        if let Some(stray) = strays.into_iter().flatten().next() {
            return Err(report.error_hint(stray, "this is of an HTTP check, and there is none", "add http = \"GET /healthz\""));
        }
        return Ok(None);
    };
    let place = request.span();
    let (method, path) = request.into_inner();
    let probe = HttpProbe {
        method,
        path,
        version: or(version, HttpVersion::Http11)?,
        headers: or(headers, BTreeMap::new())?,
        body: or(body, Vec::new())?,
        status: or(status, vec![(200, 399)])?,
        contains: contains?.map(Spanned::into_inner),
        matches: matches?.map(Spanned::into_inner),
    };
    Ok(Some(Spanned::new(place, Probe::Http(Box::new(probe)))))
}

fn check_headers(headers: Option<Spanned<BTreeMap<String, String>>>, report: &mut Report) -> Key<BTreeMap<String, String>> {
    let Some(headers) = headers else { return Ok(None) };
    // RFC 9110 s5.1 and s5.5.
    let is_token =
        |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
    let is_value = |value: &str| value.bytes().all(|byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f));
    let (place, headers) = (headers.span(), headers.into_inner());
    if let Some((name, _)) = headers.iter().find(|(name, value)| !is_token(name) || !is_value(value)) {
        return Err(report.error(place, format!("`{}` is no header field", name.escape_debug())));
    }
    let lower: BTreeMap<String, String> = headers.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
    Ok(Some(Spanned::new(place, lower)))
}

/// 200, "200-299", or a list of such.
fn read_statuses(item: &Item<'_>, report: &mut Report) -> Result<Vec<(u16, u16)>, Reported> {
    let items = match item.array() {
        Some(items) => items,
        None => return Ok(vec![read_status(item, report)?]),
    };
    if items.is_empty() {
        return Err(report.error(item.span.clone(), format!("`{}` is empty", item.path)));
    }
    Ok(read_all(&items, report, read_status)?.into_iter().map(Spanned::into_inner).collect())
}

fn read_status(item: &Item<'_>, report: &mut Report) -> Result<(u16, u16), Reported> {
    if item.is_integer() {
        let status = item.short(100..=599, report)?;
        return Ok((status, status));
    }
    item.parsed(value::status_range, report)
}

/// `true`, or the service's name.
fn read_grpc(item: &Item<'_>, report: &mut Report) -> Result<Probe, Reported> {
    if item.is_string() {
        return Ok(Probe::Grpc { service: item.string(report)?.to_owned() });
    }
    read_true(item, "grpc = \"my.package.Service\"", report).map(|()| Probe::Grpc { service: String::new() })
}

/// `true`, or the user's name.
fn read_mysql(item: &Item<'_>, report: &mut Report) -> Result<Probe, Reported> {
    if item.is_string() {
        return Ok(Probe::Mysql { user: Some(item.parsed(value::user, report)?) });
    }
    read_true(item, "mysql = \"USER\"", report).map(|()| Probe::Mysql { user: None })
}

fn read_pgsql(item: &Item<'_>, report: &mut Report) -> Result<Probe, Reported> {
    if item.is_string() {
        return Ok(Probe::Pgsql { user: item.parsed(value::user, report)? });
    }
    read_true(item, "pgsql = \"USER\"", report).map(|()| Probe::Pgsql { user: "weir".to_owned() })
}

fn read_udp(item: &Item<'_>, report: &mut Report) -> Result<Probe, Reported> {
    let mut table = item.table(report)?;
    let send = one_of(
        table.optional("send", report, |item, report| Ok(item.string(report)?.as_bytes().to_vec())),
        table.optional("send_hex", report, |item, report| item.parsed(value::hex, report)),
        report,
    );
    let expect = one_of(
        table.optional("expect", report, |item, report| Ok(item.string(report)?.as_bytes().to_vec())),
        table.optional("expect_hex", report, |item, report| item.parsed(value::hex, report)),
        report,
    );
    let hint = "udp = { send_hex = \"00\", expect_hex = \"\" }: an empty `expect` is any answer";
    let send = match send {
        Ok(None) => Err(table.missing("send", hint, report)),
        Ok(Some(send)) => Ok(send),
        Err(reported) => Err(reported),
    };
    table.finish(report);
    Ok(Probe::Udp { send: send?, expect: expect? })
}

fn one_of(text: Key<Vec<u8>>, hex: Key<Vec<u8>>, report: &mut Report) -> Result<Option<Vec<u8>>, Reported> {
    match (text?, hex?) {
        (Some(_), Some(second)) => Err(report.error(second.span(), "the bytes are given twice, as text and in hex")),
        (given, None) | (None, given) => Ok(given.map(Spanned::into_inner)),
    }
}

/// An absolute path and its arguments.
fn read_command(item: &Item<'_>, report: &mut Report) -> Result<Probe, Reported> {
    let argv = read_all(&item.elements(report)?, report, |item, report| Ok(item.string(report)?.to_owned()))?;
    let argv: Vec<String> = argv.into_iter().map(Spanned::into_inner).collect();
    match argv.first() {
        Some(program) if program.starts_with('/') => Ok(Probe::Command { argv }),
        program => {
            let error = ValueError::Path(program.cloned().unwrap_or_default());
            Err(item.refused(&error, report))
        }
    }
}

/// `true`, `false`, or how.
fn read_tls(item: &Item<'_>, report: &mut Report) -> Result<Option<CheckTls>, Reported> {
    if !item.is_table() {
        let on = item.boolean(report)?;
        return Ok(on.then_some(CheckTls { verify: false, ca: None, sni: None }));
    }
    let mut table = item.table(report)?;
    let verify = table.optional("verify", report, |item, report| item.boolean(report));
    let ca = table.optional("ca", report, |item, report| item.parsed(value::absolute_path, report));
    let sni = table.optional("sni", report, |item, report| item.parsed(value::host_name, report));
    table.finish(report);
    let ca: Option<PathBuf> = ca?.map(Spanned::into_inner);
    Ok(Some(CheckTls { verify: or(verify, ca.is_some())?, ca, sni: sni?.map(Spanned::into_inner) }))
}

fn span<T>(key: &Key<T>) -> Option<Span> {
    key.as_ref().ok().and_then(Option::as_ref).map(Spanned::span)
}
