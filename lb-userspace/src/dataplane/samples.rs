//! Dropped packets that the kernel program hands up, a few a second for each reason.

use std::os::fd::{AsRawFd, RawFd};

use aya::maps::{MapData, RingBuf};
use lb_common::{
    maps::{SAMPLE_BYTES, Sample},
    reason::Drop,
    words::ServiceId,
};

use super::{
    pins_io::PinDir,
    tables::{Tables, TablesError},
};

/// A packet that was refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DroppedPacket {
    /// When, on the kernel's jiffies clock.
    pub jiffies: u64,
    /// The interface it came in by.
    pub ifindex: u32,
    /// The service it was for; [`ServiceId::NONE`] for none.
    pub service: ServiceId,
    /// Why.
    pub reason: Drop,
    /// Length of its frame.
    pub frame_bytes: u32,
    /// The beginning of its frame.
    pub frame: Vec<u8>,
}

/// The ring of samples. It has one reader.
pub struct Samples {
    ring: RingBuf<MapData>,
}

impl std::fmt::Debug for Samples {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Samples").finish_non_exhaustive()
    }
}

impl Samples {
    /// Opens the ring pinned in `pins`.
    ///
    /// # Errors
    /// [`TablesError`] if it is not pinned or cannot be mapped.
    pub fn open(pins: &PinDir) -> Result<Self, TablesError> {
        Ok(Self { ring: Tables::open_samples(pins)? })
    }

    /// Takes at most `limit` samples out of the ring. What is no sample of this layout is left out.
    pub fn drain(&mut self, limit: usize) -> Vec<DroppedPacket> {
        let mut packets = Vec::new();
        for _ in 0..limit {
            let Some(item) = self.ring.next() else { break };
            packets.extend(read(&item));
        }
        packets
    }
}

impl AsRawFd for Samples {
    /// Readable when there are samples.
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}

fn read(bytes: &[u8]) -> Option<DroppedPacket> {
    let sample: Sample = bytemuck::try_pod_read_unaligned(bytes.get(..size_of::<Sample>())?).ok()?;
    let kept = (sample.kept_bytes as usize).min(SAMPLE_BYTES);
    Some(DroppedPacket {
        jiffies: sample.jiffies,
        ifindex: sample.ifindex,
        service: ServiceId(sample.service),
        reason: *Drop::ALL.get(usize::from(sample.reason))?,
        frame_bytes: sample.frame_bytes,
        frame: sample.bytes[..kept].to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable as _;

    use super::*;

    #[test]
    fn a_sample_keeps_no_more_bytes_than_it_has() {
        let sample = Sample { reason: Drop::TooBig as u8, service: 3, kept_bytes: 4000, frame_bytes: 9000, ..Sample::zeroed() };
        let packet = read(bytemuck::bytes_of(&sample)).unwrap();
        assert_eq!((packet.reason, packet.service, packet.frame.len(), packet.frame_bytes), (Drop::TooBig, ServiceId(3), 128, 9000));
    }

    #[test]
    fn a_short_record_or_an_unknown_reason_is_no_sample() {
        assert_eq!(read(&[0; 151]), None);
        let sample = Sample { reason: 200, ..Sample::zeroed() };
        assert_eq!(read(bytemuck::bytes_of(&sample)), None);
    }
}
