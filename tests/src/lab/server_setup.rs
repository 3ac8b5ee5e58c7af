//! `weir server-setup` on a server.

use std::{env, net::IpAddr, path::Path};

use anyhow::Context as _;

use super::{BpfFolder, Folder, Host, output_of};

/// A server that opens tunnels on its first interface. What it pinned goes away on drop, and the rest with the namespace.
#[derive(Debug)]
pub struct ServerSetup {
    _record: Folder,
    _pins: BpfFolder,
}

impl ServerSetup {
    /// Prepares `server` to serve `vips` that come by `mode`, with the binary that `WEIR_BIN` names.
    pub fn add(server: &Host, mode: &str, vips: &[IpAddr]) -> anyhow::Result<Self> {
        let binary = env::var_os("WEIR_BIN").context("WEIR_BIN does not name the weir binary\nhint: run `cargo xtask test`")?;
        let (record, pins) = (Folder::new("server-setup")?, BpfFolder::new("server")?);
        let mut command = server.namespace.command(Path::new(&binary));
        command.args(["server-setup", "add", "--interface", server.interfaces[0], "--mode", mode]);
        command.arg("--record").arg(record.path().join("server.json")).arg("--pin-dir").arg(pins.path());
        for vip in vips {
            command.args(["--vip", &vip.to_string()]);
        }
        output_of(&mut command)?;
        Ok(Self { _record: record, _pins: pins })
    }
}
