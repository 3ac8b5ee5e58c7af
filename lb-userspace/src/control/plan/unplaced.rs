//! What a plan has no room for.

use crate::control::{Endpoint, ServiceKey, installed::Capacity};

/// A service, or a server of one, that a full table has no room for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unplaced {
    /// The service.
    pub service: ServiceKey,
    /// Its server; none if the service itself has no room.
    pub server: Option<Endpoint>,
    /// What is full.
    pub table: Table,
}

/// A table that can be full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Table {
    /// Of services.
    Services,
    /// Of members.
    Members,
    /// Of addresses.
    Vips,
    /// Of NAT planes.
    Planes,
    /// Of slot pages.
    SlotPages,
}

impl Table {
    const ALL: [Self; 5] = [Self::Services, Self::SlotPages, Self::Vips, Self::Members, Self::Planes];

    /// What is full, and what helps.
    fn in_words(self, capacity: Capacity) -> (String, &'static str) {
        match self {
            Self::Services => (format!("all {} services are in use", capacity.services), "raise limits.services"),
            Self::Members => (format!("all {} members are in use", capacity.members), "raise limits.members"),
            Self::Vips => (format!("all {} addresses are in use", capacity.vips), "raise limits.services"),
            Self::Planes => (format!("too few of {} NAT planes are free", capacity.planes), "raise limits.nat_planes"),
            Self::SlotPages => ("too few slot pages are free side by side".into(), "give listeners fewer slots"),
        }
    }
}

/// One line for each table that has no room.
pub fn in_words(unplaced: &[Unplaced], capacity: Capacity) -> Vec<String> {
    let tables = Table::ALL.into_iter().filter_map(|table| {
        let mut of_table = unplaced.iter().filter(|one| one.table == table);
        let (first, others) = (of_table.next()?, of_table.count());
        let (why, cure) = table.in_words(capacity);
        let others = if others == 0 { String::new() } else { format!(" and {others} more") };
        Some(format!(
            "no room for {}{others}: {why}; dropped ones are freed an idle timeout after their last packet, or {cure}",
            first.name()
        ))
    });
    tables.collect()
}

impl Unplaced {
    fn name(&self) -> String {
        let service = format!("{} port {}", self.service.vip, self.service.port);
        match self.server {
            Some(Endpoint { address, port: 0 }) => format!("server {address} of {service}"),
            Some(Endpoint { address, port }) => format!("server {address} port {port} of {service}"),
            None => format!("service {service}"),
        }
    }
}
