//! Reads `[admin]`.

use super::{
    model::Admin,
    reader::{Table, read_all},
    report::{Report, Reported},
    value,
};

/// Where everybody may make files.
const SHARED_FOLDERS: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

pub(super) fn read(mut table: Table<'_>, report: &mut Report) -> Result<Admin, Reported> {
    let socket = table.optional("socket", report, |item, report| item.parsed(value::absolute_path, report));
    let group = table.optional("group", report, |item, report| item.parsed(value::not_empty, report));
    let users = table.optional("users", report, |item, report| {
        read_all(&item.elements(report)?, report, |item, report| item.parsed(value::not_empty, report))
    });
    table.finish(report);
    if let Ok(Some(socket)) = &socket
        && SHARED_FOLDERS.iter().any(|folder| socket.get_ref().starts_with(folder))
    {
        let message = format!("{} is in a folder that every user may write to: another may listen there first", socket.get_ref().display());
        report.warn(socket.span(), message, Some("leave `socket` out: it is in `node.state_dir` then"));
    }
    if let (Ok(None), Ok(Some(users))) = (&group, &users)
        && !users.get_ref().is_empty()
    {
        let message = "`users` has no effect for those who may not open the socket, which is root's group's";
        report.warn(users.span(), message, Some("name a group that these users are in: group = \"...\""));
    }
    Ok(Admin {
        socket: socket?.map(toml::Spanned::into_inner),
        group: group?.map(toml::Spanned::into_inner),
        users: users?.map(toml::Spanned::into_inner).unwrap_or_default().into_iter().map(toml::Spanned::into_inner).collect(),
    })
}
