use std::{
    fs,
    net::{SocketAddr, TcpStream},
};

use lb_userspace::{config::model::Probe, health::target::Target};

use crate::{
    ask::{ask, briefly, failure, target, within_tls},
    fake,
    real::{Authority, Folder, GOOD, Server, as_nobody, finish, free},
};

const SERVER: &str = "/usr/sbin/mariadbd";
/// MariaDB's least number of places for clients, and the one that it keeps for its administrator.
const PLACES: usize = 10 + 1;

fn mysql(address: SocketAddr, user: Option<&str>) -> Target {
    target(address, Probe::Mysql { user: user.map(str::to_owned) })
}

/// A server that knows `weir`, who has no password, and offers TLS.
fn server(folder: &Folder) -> Server {
    let (files, address) = (folder.path("data"), free());
    let files = format!("--datadir={}", files.display());
    bootstrap(folder, &files);
    let (certificate, key) = Authority::new().issue(&["127.0.0.1"], GOOD);
    let (certificate, key) = (folder.write_for_nobody("server.pem", &certificate), folder.write_for_nobody("server.key", &key));
    let start = folder.write("start.sql", "CREATE USER IF NOT EXISTS weir@'%';\n");
    let mut command = as_nobody(SERVER);
    command.args(["--no-defaults", &files, "--bind-address=127.0.0.1", &format!("--port={}", address.port()), "--skip-name-resolve"]);
    for (option, path) in [
        ("tmpdir", folder.path("")),
        ("socket", folder.path("socket")),
        ("pid-file", folder.path("pid")),
        ("ssl-cert", certificate),
        ("ssl-key", key),
        ("init-file", start),
    ] {
        command.arg(format!("--{option}={}", path.display()));
    }
    command.args(["--log-warnings=9", "--max-connections=10", "--innodb-flush-method=fsync", "--innodb-buffer-pool-size=8M"]);
    Server::start(command, address, folder)
}

/// Makes the server's own tables, as mariadb-install-db does.
fn bootstrap(folder: &Folder, files: &str) {
    let mut sql = "CREATE DATABASE mysql;\nUSE mysql;\nSET @auth_root_socket = NULL;\n".to_owned();
    for name in ["mysql_system_tables", "mysql_performance_tables", "mysql_system_tables_data"] {
        sql.push_str(&fs::read_to_string(format!("/usr/share/mysql/{name}.sql")).unwrap());
    }
    let sql = fs::File::open(folder.write("bootstrap.sql", &sql)).unwrap();
    finish(as_nobody("mkdir").arg(folder.path("data")));
    // A server removes what others left in its folder for temporary tables.
    let temporary = format!("--tmpdir={}", folder.path("").display());
    finish(as_nobody(SERVER).args(["--no-defaults", "--bootstrap", files, &temporary]).stdin(sql));
}

#[test]
fn mariadb_is_well_and_counts_no_broken_connection() {
    let folder = Folder::new();
    let mut server = server(&folder);
    // That of the wait for its start: so the server does write of each.
    let broken = |server: &Server| server.log().matches("Aborted connection").count();
    server.until("it wrote of a broken connection", |server| broken(server) == 1);
    for user in [Some("weir"), None] {
        assert_eq!(ask(&mysql(server.address, user)), Ok(()), "{user:?}");
        assert_eq!(ask(&within_tls(mysql(server.address, user))), Ok(()), "{user:?}");
    }
    let denied = failure(&mysql(server.address, Some("stranger")));
    assert_eq!(denied, "L7 error 1045: Access denied for user 'stranger'@'127.0.0.1' (using password: NO)");
    server.until("it wrote of the last one", |server| server.log().contains("'stranger'@'127.0.0.1'"));
    assert_eq!(broken(&server), 1, "{}", server.log());
}

#[test]
fn mariadb_without_a_place_is_sick() {
    let folder = Folder::new();
    let mut server = server(&folder);
    let address = server.address;
    // The server may not have let go of those that looked whether it is there: more than it has places for.
    let _taken: Vec<TcpStream> = (0..2 * PLACES).map(|_| TcpStream::connect(address).unwrap()).collect();
    let full = "L7 error 1040: Too many connections";
    server.until("it is full", |_| ask(&mysql(address, None)).is_err_and(|failure| failure.to_string() == full));
}

#[test]
fn a_server_that_blocks_or_lies_is_told() {
    let blocked = b"\x1d\0\0\0\xff\x69\x04Host '10.0.0.1' is blocked";
    assert_eq!(failure(&mysql(fake::greeting(blocked), None)), "L7 error 1129: Host '10.0.0.1' is blocked");
    assert_eq!(failure(&mysql(fake::greeting("SSH-2.0-OpenSSH_9.2\r\n"), None)), "L7 answer is no MySQL: \"SSH-2.0-OpenSSH_9.2\\r\\n\"");
    assert_eq!(failure(&mysql(fake::greeting("\x03\0\0\0abc"), None)), "L7 answer is no MySQL: \"abc\"");
    assert_eq!(failure(&mysql(fake::closing(), None)), "L7 server closed the connection");
    assert_eq!(failure(&mysql(free(), None)), "L4 connection refused");
}

#[test]
fn a_silent_server_times_out() {
    assert_eq!(failure(&briefly(mysql(fake::silent(), None))), "L7 timeout after 500ms: no greeting of the server");
    let mut greeting = b"\x2e\0\0\0\x0a10.11\0\x05\0\0\0saltsalt\0\xfe\xf7".to_vec();
    greeting.resize(4 + 0x2e, 0);
    let halfway = || fake::greeting(greeting.clone());
    assert_eq!(failure(&briefly(mysql(halfway(), Some("weir")))), "L7 timeout after 500ms: no answer to the login");
    assert_eq!(failure(&within_tls(mysql(halfway(), None))), "TLS server offers no TLS");
    // Nobody asked for a login: the greeting was the answer.
    assert_eq!(ask(&mysql(halfway(), None)), Ok(()));
}
