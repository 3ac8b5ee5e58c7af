//! The daemon's side: the socket, and who connects.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "owns the socket and its connections")]

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use nix::unistd::{Group, User};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{broadcast, mpsc, oneshot},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    admission::{Admission, Places, Role},
    api::{Refusal, Request},
    connection_io,
    routes_io::{Daemon, House, Peer, Place, routes},
};
use crate::control::event::Event;

/// Who is connected when the socket closes has so long to get its answer.
const GRACE: Duration = Duration::from_secs(2);
/// Connections: each holds a descriptor, a head and a small body at most.
const CONNECTIONS: Places = Places { of_role: 64, of_user: 32 };
/// Who is turned away is told why, and so many at once are given the time to hear it.
const MOST_GOODBYES: usize = 16;

/// What the daemon is asked, by whom, and where its answer goes.
#[derive(Debug)]
pub struct Ask {
    /// What.
    pub request: Request,
    /// Who.
    pub by: Caller,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Result<serde_json::Value, Refusal>>,
}

/// Who asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller {
    /// The user's number.
    pub uid: u32,
    /// What it may do.
    pub role: Role,
}

/// Who may do what.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Access {
    /// The group that the socket belongs to; none: root's.
    pub group: Option<String>,
    /// Users beside root who may change something.
    pub admins: Vec<String>,
}

impl Access {
    /// The numbers of the group and of the users.
    ///
    /// # Errors
    /// [`ListenError::Unknown`].
    pub fn numbers(&self) -> Result<(Option<u32>, Vec<u32>), ListenError> {
        let group = self.group.as_deref().map(group_number).transpose()?;
        let admins = self.admins.iter().map(|name| user_number(name)).collect::<Result<_, _>>()?;
        Ok((group, admins))
    }
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody listens there.
    #[error("another daemon listens on {}", .0.display())]
    Taken(PathBuf),
    /// Something else is there.
    #[error("{} is there and no socket", .0.display())]
    NoSocket(PathBuf),
    /// There is no such group or user.
    #[error("there is no {kind} {name:?}\nhint: see [admin] in the configuration")]
    Unknown {
        /// `group` or `user`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The system refuses.
    #[error("failed to listen on {path}", path = .path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// The refusal.
        source: io::Error,
    },
}

/// The socket.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    admins: Vec<u32>,
}

/// The socket's file, which is removed with this.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl Socket {
    /// Listens at `path`, in place of a socket that nobody listens on any more. Mode 0660.
    ///
    /// # Errors
    /// [`ListenError`].
    pub fn listen(path: &Path, access: &Access) -> Result<(Self, SocketFile), ListenError> {
        let refused = |source| ListenError::Io { path: path.to_owned(), source };
        let (group, admins) = access.numbers()?;
        if let Ok(found) = fs::symlink_metadata(path) {
            if !found.file_type().is_socket() {
                return Err(ListenError::NoSocket(path.to_owned()));
            }
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(ListenError::Taken(path.to_owned()));
            }
            fs::remove_file(path).map_err(refused)?;
        }
        // Nobody gets in between the socket's making and its mode: that of its folder's other files, and the mask, are not relied on.
        let fresh = path.with_extension("new");
        let _ = fs::remove_file(&fresh);
        let listener = UnixListener::bind(&fresh).map_err(refused)?;
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o660)).map_err(refused)?;
        if let Some(group) = group {
            std::os::unix::fs::chown(&fresh, None, Some(group)).map_err(refused)?;
        }
        fs::rename(&fresh, path).map_err(refused)?;
        Ok((Self { listener, admins }, SocketFile(path.to_owned())))
    }

    /// Answers until `end` is cancelled: then nobody gets in any more, and who is in has [`GRACE`] to get its answer. Requests go to `asks`, events come
    /// from `events`; `name` tells this daemon from the one before and after it.
    pub async fn serve(self, asks: mpsc::Sender<Ask>, events: broadcast::Sender<Event>, name: u64, end: CancellationToken) {
        let Self { listener, admins } = self;
        let routes = routes(Daemon { asks, events, name, end: end.clone() });
        let (house, admission) = (Arc::new(House::default()), Arc::new(Mutex::new(Admission::new(CONNECTIONS))));
        let (mut connections, mut goodbyes) = (JoinSet::new(), JoinSet::new());
        loop {
            // Cancel safe: accept(2) is made when a connection waits, and a task that has ended is either told or still in its set.
            tokio::select! {
                () = end.cancelled() => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => match caller(&stream, &admins) {
                        Ok(by) => match Place::take(&admission, &by) {
                            Ok(place) => {
                                let (peer, routes, end) = (Peer::new(by, house.clone()), routes.clone(), end.clone());
                                connections.spawn(async move {
                                    connection_io::serve(stream, routes, peer, end).await;
                                    drop(place);
                                });
                            }
                            Err(full) => {
                                if full.is_first {
                                    warn!(uid = by.uid, "a user has all its connections to the admin socket, and gets no more");
                                }
                                if goodbyes.len() < MOST_GOODBYES {
                                    goodbyes.spawn(connection_io::turn_away(stream, too_many(by.role)));
                                } else {
                                    connection_io::brush_off(&stream, &too_many(by.role));
                                }
                            }
                        },
                        Err(error) => warn!(%error, "somebody unknown was not let in by the admin socket"),
                    },
                    Err(error) => {
                        // Out of descriptors, most likely: others are given the time to close theirs.
                        warn!(%error, "the admin socket lets nobody in");
                        tokio::time::sleep(PAUSE).await;
                    }
                },
                Some(_) = connections.join_next() => {}
                Some(_) = goodbyes.join_next() => {}
            }
        }
        drop(listener);
        let all_over = async { while connections.join_next().await.is_some() {} };
        // Who takes its answer slower than that is cut off.
        let _ = timeout(GRACE, all_over).await;
    }
}

const PAUSE: Duration = Duration::from_millis(100);

/// Who has connected.
fn caller(stream: &UnixStream, admins: &[u32]) -> io::Result<Caller> {
    let uid = stream.peer_cred()?.uid();
    let is_own = uid == rustix::process::getuid().as_raw();
    let role = match uid {
        0 => Role::Root,
        _ if is_own => Role::Root,
        uid if admins.contains(&uid) => Role::Admin,
        _ => Role::Reader,
    };
    Ok(Caller { uid, role })
}

fn too_many(role: Role) -> Refusal {
    let Places { of_role, of_user } = CONNECTIONS;
    let most = match role {
        Role::Root => format!("root has {of_role}"),
        Role::Admin | Role::Reader => format!("a user has {of_user}, all users of a kind {of_role}"),
    };
    let hint = Some("have commands and programs that are not needed end: ss -xp shows them".into());
    Refusal { hint, ..Refusal::text(format!("the admin socket has no more connections for you: {most} at most")) }
}

fn group_number(name: &str) -> Result<u32, ListenError> {
    let unknown = || ListenError::Unknown { kind: "group", name: name.to_owned() };
    Ok(Group::from_name(name).ok().flatten().ok_or_else(unknown)?.gid.as_raw())
}

fn user_number(name: &str) -> Result<u32, ListenError> {
    let unknown = || ListenError::Unknown { kind: "user", name: name.to_owned() };
    Ok(User::from_name(name).ok().flatten().ok_or_else(unknown)?.uid.as_raw())
}
