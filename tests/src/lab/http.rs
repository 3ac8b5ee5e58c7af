//! HTTP requests by curl.

use std::{collections::BTreeMap, fmt::Display};

use super::Namespace;

/// The body at `url`, asked from inside `namespace` with five seconds of patience.
pub fn http_get(namespace: &Namespace, url: impl Display) -> anyhow::Result<String> {
    let url = url.to_string();
    namespace.run("curl", &["--silent", "--show-error", "--fail", "--globoff", "--noproxy", "*", "--max-time", "5", &url])
}

/// How often each body came in `count` requests, each on a connection of its own.
pub fn http_tally(namespace: &Namespace, url: impl Display, count: usize) -> anyhow::Result<BTreeMap<String, usize>> {
    let url = url.to_string();
    let mut tally = BTreeMap::new();
    for _ in 0..count {
        *tally.entry(http_get(namespace, &url)?.trim().to_owned()).or_default() += 1;
    }
    Ok(tally)
}

/// How often each of `servers` servers answered, each with a body of its own: ten requests, and more until all of them have, of which there are 400 at most.
///
/// Which server takes a connection depends on its port: ten requests all meet one of two servers once in 512 times.
pub fn http_servers(namespace: &Namespace, url: impl Display, servers: usize) -> anyhow::Result<BTreeMap<String, usize>> {
    let url = url.to_string();
    let mut tally = http_tally(namespace, &url, 10)?;
    while tally.len() < servers && tally.values().sum::<usize>() < 400 {
        *tally.entry(http_get(namespace, &url)?.trim().to_owned()).or_default() += 1;
    }
    Ok(tally)
}
