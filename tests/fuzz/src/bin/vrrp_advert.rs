//! Adverts of strangers: what is decoded can be encoded again to the same bytes, what is opened was sealed and is opened once.
#![no_main]

use std::{collections::BTreeMap, net::IpAddr, sync::LazyLock, time::Duration};

use lb_common::checksum::sum_of;
use lb_userspace::vrrp::{
    addresses::{GROUP4, GROUP6},
    auth::{Epoch, Key, KeyId, Keys, Opener, Sealer, TRAILER_BYTES},
    packet::{Advert, Authentication, Ends, Received, checksum_form_of, decode, router_of},
    refusal::Refusal,
    terms::Version,
};
use libfuzzer_sys::{arbitrary::Unstructured, fuzz_target};

const PASSWORD: Authentication = Authentication::Password(*b"sesame\0\0");
const CHECKSUM: std::ops::Range<usize> = 6..8;
const HEADER_BYTES: usize = 8;

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let accepted = [(1, b"sixteen bytes, 1"), (2, b"sixteen bytes, 2")];
    let accepted: BTreeMap<_, _> =
        accepted.into_iter().map(|(id, secret)| (KeyId::new(id), Key::new(secret).expect("it has 16 bytes"))).collect();
    Keys::new(accepted, KeyId::new(2)).expect("key 2 is in the ring")
});

/// How the bytes arrive. A first byte of eight switches, then the hop limit.
struct Arrival {
    version: Version,
    ends: Ends,
    hop_limit: u8,
    authentication: Authentication,
    /// The checksum is made right before anything is decoded.
    is_summed: bool,
    /// That of the other form (IPv4), or wrong (IPv6).
    has_pseudo_header: bool,
    /// It is sealed with a key of the ring.
    is_sealed: bool,
    /// One byte of what was sealed is another: where, and how.
    damage: Option<(usize, u8)>,
}

impl Arrival {
    fn read(bytes: &mut Unstructured<'_>) -> libfuzzer_sys::arbitrary::Result<Self> {
        let switches: u8 = bytes.arbitrary()?;
        let is = |bit: u8| switches & 1 << bit != 0;
        let source = |is_v6| if is_v6 { IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 5]) } else { IpAddr::from([192, 0, 2, 5]) };
        let group = if is(1) { IpAddr::V6(GROUP6) } else { IpAddr::V4(GROUP4) };
        let hop_limit = if is(7) { bytes.arbitrary()? } else { 255 };
        Ok(Self {
            version: if is(0) { Version::V2 } else { Version::V3 },
            // A hop limit that is chosen comes with ends that may be of two families.
            ends: Ends { source: source(is(1) != (is(7) && hop_limit == 255)), destination: group },
            hop_limit,
            authentication: if is(2) { PASSWORD } else { Authentication::None },
            is_summed: is(3),
            has_pseudo_header: is(4),
            is_sealed: is(5),
            damage: if is(5) && is(6) { Some((bytes.arbitrary::<u16>()?.into(), bytes.arbitrary()?)) } else { None },
        })
    }

    fn received<'a>(&self, payload: &'a [u8]) -> Received<'a> {
        Received { ends: self.ends, hop_limit: self.hop_limit, payload }
    }

    fn write_checksum(&self, payload: &mut [u8]) {
        if payload.len() < HEADER_BYTES {
            return;
        }
        payload[CHECKSUM].fill(0);
        let before = if self.has_pseudo_header { pseudo_header(self.ends, payload.len()) } else { Vec::new() };
        let sum = sum_of(&[&before[..], payload].concat()).checksum().to_ne_bytes();
        payload[CHECKSUM].copy_from_slice(&sum);
    }
}

/// RFC 8200 s8.1; of IPv4 RFC 9293 s3.1.
fn pseudo_header(ends: Ends, length: usize) -> Vec<u8> {
    let length = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
    let octets = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    [octets(ends.source), octets(ends.destination), length.to_vec(), vec![0, 112]].concat()
}

fuzz_target!(|data: &[u8]| {
    let mut bytes = Unstructured::new(data);
    let Ok(arrival) = Arrival::read(&mut bytes) else { return };
    let mut payload = bytes.take_rest().to_vec();
    if arrival.is_summed {
        arrival.write_checksum(&mut payload);
    }
    decoded(&arrival, &payload);
    opened(&arrival, payload);
});

fn decoded(arrival: &Arrival, payload: &[u8]) {
    let received = arrival.received(payload);
    let Ok(advert) = decode(&received, arrival.version, arrival.authentication) else { return };
    assert_eq!(arrival.hop_limit, 255);
    assert_eq!((advert.version, Some(advert.router)), (arrival.version, router_of(payload)));
    assert_eq!(advert.addresses.as_slice().len(), usize::from(payload[3]));
    let form = checksum_form_of(&received).unwrap_or_default();
    let again = advert.encode(arrival.ends, form, arrival.authentication);
    assert_eq!(decode(&arrival.received(&again), arrival.version, arrival.authentication).as_ref(), Ok(&advert));
    assert_eq!(without_what_is_free(&again, &advert, arrival), without_what_is_free(payload, &advert, arrival));
}

/// Without what a receiver ignores: reserved bits, the authentication of type 0, and the checksum, which covers these.
fn without_what_is_free(message: &[u8], advert: &Advert, arrival: &Arrival) -> Vec<u8> {
    let mut message = message.to_vec();
    message[CHECKSUM].fill(0);
    match advert.version {
        Version::V3 => message[4] &= 0x0f,
        Version::V2 if arrival.authentication == Authentication::None => message.truncate(message.len() - 8),
        Version::V2 => {}
    }
    message
}

fn opened(arrival: &Arrival, payload: Vec<u8>) {
    let length = payload.len();
    let sound = payload.clone();
    let mut arrived = if arrival.is_sealed {
        Sealer::new(KEYS.clone(), Epoch::after(None, Duration::from_secs(1))).seal(payload, arrival.ends)
    } else {
        payload
    };
    let mut is_damaged = false;
    if let Some((at, bits)) = arrival.damage {
        let at = at % arrived.len();
        arrived[at] ^= bits;
        is_damaged = bits != 0;
    }
    let mut opener = Opener::new(KEYS.clone());
    let received = arrival.received(&arrived);
    let first = opener.open(&received);
    let Ok(inner) = first else { return };
    assert!(arrival.is_sealed && !is_damaged, "nobody with a key made it");
    assert_eq!((inner.payload, arrived.len()), (&sound[..], length + TRAILER_BYTES));
    assert_eq!(opener.open(&received), Err(Refusal::Replayed));
    let mut restored = Opener::new(KEYS.clone());
    restored.restore(opener.heard());
    assert_eq!(restored.open(&received), Err(Refusal::Replayed));
    restored.forget(arrival.ends.source);
    assert!(restored.open(&received).is_ok());
}
