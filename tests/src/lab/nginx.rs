//! nginx as a server.

use std::{
    fs::{self, File},
    time::Duration,
};

use anyhow::Context as _;

use super::{Folder, Namespace, Process};

const BIG_BYTES: u64 = 1 << 30;

/// A running nginx. `/` answers with the server's name and a line end; `/big` with 1 GiB of zeros.
#[derive(Debug)]
pub struct Nginx {
    process: Process,
    _folder: Folder,
}

impl Nginx {
    /// Starts one on `port` of every address of the namespace, and waits until it listens.
    pub fn start(namespace: &Namespace, name: &str, port: u16) -> anyhow::Result<Self> {
        let folder = Folder::new(&format!("nginx-{name}"))?;
        let root = folder.path();
        let big = File::create(root.join("big")).context("failed to make the big file")?;
        big.set_len(BIG_BYTES).context("failed to size the big file")?;
        fs::write(root.join("nginx.conf"), configuration(name, port)).context("failed to write nginx.conf")?;
        let mut command = namespace.command("nginx");
        command.arg("-p").arg(root).args(["-c", "nginx.conf", "-e", "stderr"]);
        let process = namespace.spawn(&format!("nginx-{name}"), command)?;
        let nginx = Self { process, _folder: folder };
        namespace.wait_listening(port, Duration::from_secs(5)).with_context(|| format!("nginx said: {}", nginx.process.stderr()))?;
        Ok(nginx)
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

fn configuration(name: &str, port: u16) -> String {
    format!(
        "daemon off; master_process off; pid nginx.pid; error_log stderr; worker_rlimit_nofile 16384;
         events {{ worker_connections 8192; }}
         http {{
             access_log off; sendfile on; tcp_nodelay on;
             client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
             server {{
                 listen {port}; listen [::]:{port};
                 default_type text/plain;
                 location / {{ return 200 \"{name}\\n\"; }}
                 location = /big {{ root .; }}
             }}
         }}"
    )
}
