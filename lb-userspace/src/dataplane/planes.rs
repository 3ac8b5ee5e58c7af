//! NAT planes: the daemon writes which addresses and ports they have, the kernel takes chunks of ports for them from a ring.

use bytemuck::Zeroable as _;
use lb_common::{
    address::Address,
    hash::Hash,
    maps::{CHUNK_PENDING, CHUNKS_PER_PLANE, NatPlane},
    place,
};

use super::{
    apply::{ApplyError, full, is_in_use},
    layout::FREE_RING_HEAD,
    lines,
    mapped::AccessError,
    tables::Tables,
};
use crate::control::op::PlaneSpec;

const HEAD: u32 = 0;
const TAIL: u32 = 1;

/// How a plane's ports are used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PlaneUsage {
    /// Its number.
    pub index: u16,
    /// The address that the server sees.
    pub snat: Address,
    /// The server.
    pub server: Address,
    /// Its port, host order.
    pub server_port: u16,
    /// 6 or 17.
    pub protocol: u8,
    /// Chunks of 256 ports that it has been given.
    pub chunks_used: u64,
    /// Chunks that it may have.
    pub chunks: u32,
}

/// How NAT is used.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NatUsage {
    /// Every plane in use.
    pub planes: Vec<PlaneUsage>,
    /// Chunks of 256 flows that no plane has.
    pub free_chunks: u64,
}

/// Writes the constant fields and publishes the endpoint.
pub(crate) fn write(tables: &Tables, index: u16, plane: &PlaneSpec) -> Result<(), ApplyError> {
    let record = NatPlane {
        snat: plane.snat,
        server: plane.server,
        server_port: plane.server_port.to_be(),
        protocol: plane.protocol,
        low_first: plane.low.0,
        low_chunks: plane.low.1,
        high_first: plane.high.0,
        high_chunks: plane.high.1,
        ..NatPlane::zeroed()
    };
    tables.nat_planes.write(u32::from(index), &record)?;
    let hash = endpoint(tables, &record);
    let word = u64::from(hash.tag) << 32 | u64::from(index);
    let put = lines::put(&tables.nat_endpoints, hash.index, word, |other| other == word);
    put.map_err(|error| full("NAT_ENDPOINTS", error, || format!("{} port {} from {}", plane.server, plane.server_port, plane.snat)))
}

/// Takes the endpoint away, returns the chunks, clears the record.
pub(crate) fn free(tables: &Tables, index: u16) -> Result<(), ApplyError> {
    let record = tables.nat_planes.record(u32::from(index))?;
    if is_in_use(&record) {
        let hash = endpoint(tables, &record);
        let word = u64::from(hash.tag) << 32 | u64::from(index);
        lines::take(&tables.nat_endpoints, hash.index, |other| other == word)?;
    }
    for position in 0..CHUNKS_PER_PLANE {
        // Taken from the plane before it is given to the ring: who dies in between loses a chunk, but never has it given twice.
        let mut chunk = 0;
        tables.nat_chunks.update_word(u32::from(index) * CHUNKS_PER_PLANE + position, 0, |word| {
            chunk = word;
            Some(0)
        })?;
        if chunk != 0 && chunk != CHUNK_PENDING {
            give_back(tables, chunk - 1)?;
        }
    }
    tables.nat_used.store_word(u32::from(index), 0, 0)?;
    Ok(tables.nat_planes.write(u32::from(index), &NatPlane::zeroed())?)
}

/// What every plane uses.
pub(crate) fn usage(tables: &Tables) -> Result<NatUsage, AccessError> {
    let mut usage = NatUsage::default();
    if tables.nat_free.len() > FREE_RING_HEAD {
        usage.free_chunks = tables.nat_free.word(TAIL, 0)?.wrapping_sub(tables.nat_free.word(HEAD, 0)?);
    }
    for index in 0..tables.nat_planes.len() {
        let plane = tables.nat_planes.record(index)?;
        if is_in_use(&plane) {
            usage.planes.push(PlaneUsage {
                index: index as u16,
                snat: plane.snat,
                server: plane.server,
                server_port: u16::from_be(plane.server_port),
                protocol: plane.protocol,
                chunks_used: tables.nat_used.word(index, 0)?,
                chunks: u32::from(plane.low_chunks) + u32::from(plane.high_chunks),
            });
        }
    }
    Ok(usage)
}

fn endpoint(tables: &Tables, plane: &NatPlane) -> Hash {
    place::endpoint(&plane.server, &plane.snat, plane.server_port, plane.protocol, tables.abi.keys.table)
}

/// Puts a chunk at the ring's tail; this process is the only one that does. The ring has room for all chunks.
fn give_back(tables: &Tables, chunk: u64) -> Result<(), AccessError> {
    let ring = &tables.nat_free;
    let tail = ring.word(TAIL, 0)?;
    let mask = u64::from(ring.len().saturating_sub(FREE_RING_HEAD + 1));
    ring.store_word(FREE_RING_HEAD + (tail & mask) as u32, 0, chunk)?;
    ring.store_word(TAIL, 0, tail + 1)
}
