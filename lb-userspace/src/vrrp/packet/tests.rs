use proptest::prelude::*;

use super::*;
use crate::vrrp::{addresses::group, terms::Priority};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn ends4() -> Ends {
    Ends { source: ip("192.0.2.2"), destination: group(Family::V4) }
}

fn ends6() -> Ends {
    Ends { source: ip("fe80::2"), destination: group(Family::V6) }
}

fn received(ends: Ends, payload: &[u8]) -> Received<'_> {
    Received { ends, hop_limit: 255, payload }
}

fn advert(version: Version, addresses: &[&str]) -> Advert {
    let addresses: Vec<IpAddr> = addresses.iter().map(|address| ip(address)).collect();
    Advert {
        version,
        router: RouterId::new(51).unwrap(),
        priority: AdvertPriority::Holds(Priority::new(150).unwrap()),
        interval: Interval::from_centiseconds(100).unwrap(),
        addresses: AddressList::new(&addresses).unwrap(),
    }
}

/// Version 3, id 51, priority 150, one second, 192.0.2.10. By hand: 3133 + 9601 + 0064 + c000 + 020a = 189a2, so 89a3, whose complement is 765c.
const V3_MESSAGE: [u8; 12] = [0x31, 51, 150, 1, 0x00, 100, 0x76, 0x5c, 192, 0, 2, 10];
/// The same as keepalived sends it from 192.0.2.2: c000 + 0202 + e000 + 0012 + 0070 + 000c + 189a2 = 32c32, so 2c35, whose complement is d3ca.
const V3_PSEUDO: [u8; 12] = [0x31, 51, 150, 1, 0x00, 100, 0xd3, 0xca, 192, 0, 2, 10];
/// Version 2, id 51, priority 100, one second, 192.0.2.10, password "secret": the sum is 2848a, so 848c, whose complement is 7b73.
const V2_PASSWORD: [u8; 20] = [0x21, 51, 100, 1, 1, 1, 0x7b, 0x73, 192, 0, 2, 10, b's', b'e', b'c', b'r', b'e', b't', 0, 0];
const SECRET: Authentication = Authentication::Password(*b"secret\0\0");

#[test]
fn fixed_bytes_are_read_and_written() {
    let three = advert(Version::V3, &["192.0.2.10"]);
    assert_eq!(three.encode(ends4(), ChecksumForm::Message, Authentication::None), V3_MESSAGE);
    assert_eq!(three.encode(ends4(), ChecksumForm::PseudoHeader, Authentication::None), V3_PSEUDO);
    for bytes in [V3_MESSAGE, V3_PSEUDO] {
        assert_eq!(decode(&received(ends4(), &bytes), Version::V3, Authentication::None), Ok(three.clone()));
    }
    let forms = [&V3_MESSAGE[..], &V3_PSEUDO, &V2_PASSWORD, &V3_MESSAGE[..8]].map(|bytes| checksum_form_of(&received(ends4(), bytes)));
    assert_eq!(forms, [Some(ChecksumForm::Message), Some(ChecksumForm::PseudoHeader), None, None]);
    let two = Advert { priority: AdvertPriority::from(100), ..advert(Version::V2, &["192.0.2.10"]) };
    assert_eq!(two.encode(ends4(), ChecksumForm::PseudoHeader, SECRET), V2_PASSWORD);
    assert_eq!(decode(&received(ends4(), &V2_PASSWORD), Version::V2, SECRET), Ok(two));
}

#[test]
fn an_advert_of_ipv6_has_a_pseudo_header() {
    let six = advert(Version::V3, &["fe80::a", "2001:db8::a"]);
    // The sum is made here once more, in 32 bits: the message, then fe80 + 2, ff02 + 12, the length 40, and 112.
    let mut bytes = vec![0x31, 51, 150, 2, 0, 100, 0, 0];
    bytes.extend(["fe80::a", "2001:db8::a"].iter().flat_map(|address| address.parse::<Ipv6Addr>().unwrap().octets()));
    let words = |bytes: &[u8]| bytes.chunks(2).map(|pair| u32::from(pair[0]) * 256 + u32::from(pair[1])).sum::<u32>();
    let sum = words(&bytes) + 0xfe80 + 2 + 0xff02 + 0x12 + 40 + 112;
    bytes[6..8].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
    for form in [ChecksumForm::Message, ChecksumForm::PseudoHeader] {
        assert_eq!(six.encode(ends6(), form, Authentication::None), bytes);
    }
    assert_eq!(decode(&received(ends6(), &bytes), Version::V3, Authentication::None), Ok(six));
    let other = Ends { source: ip("fe80::3"), ..ends6() };
    assert_eq!(decode(&received(other, &bytes), Version::V3, Authentication::None), Err(Refusal::Checksum));
}

/// A payload with this byte changed and the checksum made right again.
fn with(bytes: &[u8], at: usize, value: u8) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] = value;
    bytes[CHECKSUM_AT..HEADER_BYTES].fill(0);
    let sum = checksum(&bytes, 0).to_be_bytes();
    bytes[CHECKSUM_AT..HEADER_BYTES].copy_from_slice(&sum);
    bytes
}

#[test]
fn every_refusal_has_its_bytes() {
    let three = |payload: &[u8]| decode(&received(ends4(), payload), Version::V3, Authentication::None).unwrap_err();
    assert_eq!(three(&[]), Refusal::Short);
    assert_eq!(three(&V3_MESSAGE[..7]), Refusal::Short);
    assert_eq!(three(&V3_MESSAGE[..11]), Refusal::Length);
    assert_eq!(three(&[&V3_MESSAGE[..], &[0]].concat()), Refusal::Length);
    assert_eq!(three(&with(&V3_MESSAGE, 0, 0x41)), Refusal::Version);
    assert_eq!(three(&V2_PASSWORD), Refusal::Version);
    assert_eq!(three(&with(&V3_MESSAGE, 0, 0x32)), Refusal::Type);
    assert_eq!(three(&with(&V3_MESSAGE, 1, 0)), Refusal::NoRouter);
    assert_eq!(three(&with(&V3_MESSAGE, 3, 0)), Refusal::NoAddress);
    assert_eq!(three(&with(&V3_MESSAGE, 3, 2)), Refusal::Length);
    assert_eq!(three(&with(&V3_MESSAGE, 5, 0)), Refusal::NoInterval);
    // The upper four bits are reserved and ignored: RFC 9568 s5.2.6.
    assert!(decode(&received(ends4(), &with(&V3_MESSAGE, 4, 0xf0)), Version::V3, Authentication::None).is_ok());
    let mut wrong = V3_MESSAGE;
    wrong[7] ^= 1;
    assert_eq!(three(&wrong), Refusal::Checksum);

    let far = Received { hop_limit: 254, ..received(ends4(), &V3_MESSAGE) };
    assert_eq!(decode(&far, Version::V3, Authentication::None), Err(Refusal::HopLimit));
    let mixed = Ends { destination: group(Family::V6), ..ends4() };
    assert_eq!(decode(&received(mixed, &V3_MESSAGE), Version::V3, Authentication::None), Err(Refusal::Families));

    let two = |payload: &[u8], agreed| decode(&received(ends4(), payload), Version::V2, agreed).unwrap_err();
    assert_eq!(two(&V2_PASSWORD, Authentication::None), Refusal::AuthType);
    assert_eq!(two(&with(&V2_PASSWORD, 4, 2), SECRET), Refusal::AuthType);
    assert_eq!(two(&with(&V2_PASSWORD, 4, 0), SECRET), Refusal::AuthType);
    assert_eq!(two(&with(&V2_PASSWORD, 12, b'S'), SECRET), Refusal::Password);
    assert_eq!(two(&with(&V2_PASSWORD, 5, 0), SECRET), Refusal::NoInterval);
    assert_eq!(two(&V2_PASSWORD[..12], SECRET), Refusal::Length);
    assert_eq!(decode(&received(ends6(), &V2_PASSWORD), Version::V2, SECRET), Err(Refusal::Version));
    assert_eq!((router_of(&V3_MESSAGE), router_of(&[0x31])), (RouterId::new(51), None));
}

fn any_advert() -> impl Strategy<Value = (Advert, Ends)> {
    let four = prop::collection::btree_set(any::<[u8; 4]>().prop_map(IpAddr::from), 1..=255);
    let six = prop::collection::btree_set(any::<[u8; 16]>().prop_map(IpAddr::from), 1..=255);
    let four = (prop_oneof![Just(Version::V2), Just(Version::V3)], four, Just(ends4()));
    let six = (Just(Version::V3), six, any::<[u8; 16]>().prop_map(|source| Ends { source: source.into(), ..ends6() }));
    (prop_oneof![four, six], 1..=255_u8, any::<u8>(), 1..=40_u16).prop_map(|((version, addresses, ends), id, priority, seconds)| {
        let addresses: Vec<_> = addresses.into_iter().collect();
        let advert = Advert {
            version,
            router: RouterId::new(id).unwrap(),
            priority: priority.into(),
            interval: Interval::from_centiseconds(seconds * 100).unwrap(),
            addresses: AddressList::new(&addresses).unwrap(),
        };
        (advert, ends)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_is_written_is_read(
        (advert, ends) in any_advert(),
        form in prop_oneof![Just(ChecksumForm::Message), Just(ChecksumForm::PseudoHeader)],
        auth in prop_oneof![Just(Authentication::None), any::<[u8; 8]>().prop_map(Authentication::Password)],
    ) {
        let bytes = advert.encode(ends, form, auth);
        prop_assert_eq!(decode(&received(ends, &bytes), advert.version, auth), Ok(advert));
    }

    #[test]
    fn every_changed_bit_is_found((advert, ends) in any_advert(), at in any::<prop::sample::Index>(), bit in 0..8) {
        let mut bytes = advert.encode(ends, ChecksumForm::Message, SECRET);
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        prop_assert!(decode(&received(ends, &bytes), advert.version, SECRET).is_err());
    }

    #[test]
    fn any_bytes_are_survived(payload in prop::collection::vec(any::<u8>(), 0..1100), hop_limit in 254..=255_u8, is_six: bool) {
        let ends = if is_six { ends6() } else { ends4() };
        for version in [Version::V2, Version::V3] {
            drop(decode(&Received { ends, hop_limit, payload: &payload }, version, SECRET));
        }
    }

    #[test]
    fn any_bytes_behind_a_good_start_are_survived(rest in prop::collection::vec(any::<u8>(), 0..64), count: u8, is_two: bool) {
        let payload = [&[if is_two { 0x21 } else { 0x31 }, 1, 2, count % 16][..], &rest].concat();
        for version in [Version::V2, Version::V3] {
            drop(decode(&received(ends4(), &payload), version, SECRET));
        }
    }
}
