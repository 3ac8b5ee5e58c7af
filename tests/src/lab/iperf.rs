//! iperf3, for throughput.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, bail};

use super::{Namespace, Process};

const PORT: u16 = 5201;

/// A running iperf3 server.
#[derive(Debug)]
pub struct Iperf {
    _process: Process,
}

impl Iperf {
    /// Starts one on port 5201 and waits until it listens.
    pub fn start(namespace: &Namespace) -> anyhow::Result<Self> {
        let mut command = namespace.command("iperf3");
        command.args(["--server", "--port", &PORT.to_string()]);
        let process = namespace.spawn("iperf3", command)?;
        namespace.wait_listening(PORT, Duration::from_secs(5))?;
        Ok(Self { _process: process })
    }

    /// Bits per second received over one TCP connection from `client` to port 5201 of `address` during `time` (whole seconds).
    pub fn measure(client: &Namespace, address: IpAddr, time: Duration) -> anyhow::Result<f64> {
        let seconds = time.as_secs().max(1).to_string();
        let text = client.run("iperf3", &["--json", "--client", &address.to_string(), "--port", &PORT.to_string(), "--time", &seconds])?;
        let report: serde_json::Value = serde_json::from_str(&text).context("iperf3 printed no JSON")?;
        match report["end"]["sum_received"]["bits_per_second"].as_f64() {
            Some(rate) => Ok(rate),
            None => bail!("iperf3 measured nothing: {}", report["error"]),
        }
    }
}
