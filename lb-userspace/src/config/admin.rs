//! Reads `[admin]`.

use super::{
    model::Admin,
    reader::{Table, read_all},
    report::{Report, Reported},
    value,
};

pub(super) fn read(mut table: Table<'_>, report: &mut Report) -> Result<Admin, Reported> {
    let socket = table.optional("socket", report, |item, report| item.parsed(value::absolute_path, report));
    let group = table.optional("group", report, |item, report| item.parsed(value::not_empty, report));
    let users = table.optional("users", report, |item, report| {
        read_all(&item.elements(report)?, report, |item, report| item.parsed(value::not_empty, report))
    });
    table.finish(report);
    Ok(Admin {
        socket: socket?.map(toml::Spanned::into_inner),
        group: group?.map(toml::Spanned::into_inner),
        users: users?.map(toml::Spanned::into_inner).unwrap_or_default().into_iter().map(toml::Spanned::into_inner).collect(),
    })
}
