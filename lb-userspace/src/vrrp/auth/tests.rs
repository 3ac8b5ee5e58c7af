use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::vrrp::{
    addresses::{AddressList, group},
    packet::{Advert, Authentication, ChecksumForm, decode},
    terms::{AdvertPriority, Family, Interval, RouterId, Version},
};

fn ends(last: u8) -> Ends {
    Ends { source: IpAddr::from([192, 0, 2, last]), destination: group(Family::V4) }
}

fn message(router: u8) -> Vec<u8> {
    let advert = Advert {
        version: Version::V3,
        router: RouterId::new(router).unwrap(),
        priority: AdvertPriority::from(100),
        interval: Interval::from_centiseconds(10).unwrap(),
        addresses: AddressList::new(&[IpAddr::from([192, 0, 2, 10])]).unwrap(),
    };
    advert.encode(ends(1), ChecksumForm::Message, Authentication::None)
}

fn ring(ids: &[u8], sends: u8) -> Keys {
    let keys: BTreeMap<_, _> = ids.iter().map(|id| (KeyId::new(*id), Key::new(&[*id; 32]).unwrap())).collect();
    Keys::new(keys, KeyId::new(sends)).unwrap()
}

fn sealer(epoch: u64) -> Sealer {
    Sealer::new(ring(&[1], 1), Epoch::new(epoch))
}

fn open(opener: &mut Opener, ends: Ends, payload: &[u8]) -> Result<(), Refusal> {
    let received = Received { ends, hop_limit: 255, payload };
    let opened = opener.open(&received)?;
    decode(&opened, Version::V3, Authentication::None).unwrap();
    Ok(())
}

#[test]
fn a_sealed_advert_opens_once() {
    let (mut sealer, mut opener) = (sealer(5), Opener::new(ring(&[1], 1)));
    let first = sealer.seal(message(51), ends(1));
    let second = sealer.seal(message(51), ends(1));
    assert_eq!(first.len(), 12 + TRAILER_BYTES);
    assert_eq!(&first[12..20], b"WVRA\x01\x01\0\0");
    assert_eq!(&first[20..36], [0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 1]);
    assert_eq!(open(&mut opener, ends(1), &second), Ok(()));
    assert_eq!(open(&mut opener, ends(1), &second), Err(Refusal::Replayed));
    assert_eq!(open(&mut opener, ends(1), &first), Err(Refusal::Replayed));
    assert_eq!(open(&mut opener, ends(1), &sealer.seal(message(51), ends(1))), Ok(()));
}

#[test]
fn nothing_but_the_sealed_advert_between_its_ends_is_believed() {
    let mut opener = Opener::new(ring(&[1, 2], 2));
    let sealed = sealer(5).seal(message(51), ends(1));
    assert_eq!(open(&mut opener, ends(1), &message(51)), Err(Refusal::Unauthenticated));
    assert_eq!(open(&mut opener, ends(1), &sealed[..sealed.len() - 1]), Err(Refusal::Trailer));
    assert_eq!(open(&mut opener, ends(1), &[&sealed[..], &[0]].concat()), Err(Refusal::Trailer));
    // Of somebody else, to somebody else, of another virtual router.
    assert_eq!(open(&mut opener, ends(2), &sealed), Err(Refusal::Mac));
    let elsewhere = Ends { destination: IpAddr::from([192, 0, 2, 9]), ..ends(1) };
    assert_eq!(open(&mut opener, elsewhere, &sealed), Err(Refusal::Mac));
    let other = [&message(52)[..], &sealed[12..]].concat();
    assert_eq!(open(&mut opener, ends(1), &other), Err(Refusal::Mac));
    let received = Received { ends: ends(1), hop_limit: 254, payload: &sealed };
    assert_eq!(opener.open(&received), Err(Refusal::HopLimit));
    for (at, refusal) in [(12, Refusal::Trailer), (16, Refusal::Trailer), (18, Refusal::Trailer), (19, Refusal::Trailer)] {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        assert_eq!(open(&mut opener, ends(1), &changed), Err(refusal), "{at}");
    }
    let mut other_key = sealed.clone();
    other_key[17] = 2;
    assert_eq!(open(&mut opener, ends(1), &other_key), Err(Refusal::Mac));
    other_key[17] = 3;
    assert_eq!(open(&mut opener, ends(1), &other_key), Err(Refusal::UnknownKey));
    // None of it used up the number.
    assert_eq!(open(&mut opener, ends(1), &sealed), Ok(()));
}

#[test]
fn keys_roll_over_without_a_gap() {
    let mut sealer = Sealer::new(ring(&[1], 1), Epoch::new(1));
    let mut opener = Opener::new(ring(&[1], 1));
    let old = sealer.seal(message(51), ends(1));
    assert_eq!(open(&mut opener, ends(1), &old), Ok(()));
    opener.set_keys(ring(&[1, 2], 1));
    sealer.set_keys(ring(&[1, 2], 2));
    assert_eq!(open(&mut opener, ends(1), &sealer.seal(message(51), ends(1))), Ok(()));
    assert_eq!(open(&mut opener, ends(1), &old), Err(Refusal::Replayed));
    opener.set_keys(ring(&[2], 2));
    assert_eq!(open(&mut opener, ends(1), &old), Err(Refusal::UnknownKey));
}

#[test]
fn a_restart_goes_on_and_a_clock_that_goes_back_is_noticed() {
    let mut opener = Opener::new(ring(&[1], 1));
    let mut before = sealer(1000);
    let recorded = before.seal(message(51), ends(1));
    assert_eq!(open(&mut opener, ends(1), &before.seal(message(51), ends(1))), Ok(()));
    assert_eq!(open(&mut opener, ends(1), &sealer(1001).seal(message(51), ends(1))), Ok(()));
    assert_eq!(open(&mut opener, ends(1), &before.seal(message(51), ends(1))), Err(Refusal::Stale));
    let back = sealer(7).seal(message(51), ends(1));
    assert_eq!(open(&mut opener, ends(1), &back), Err(Refusal::Stale));

    // A receiver that restarts knows what it kept.
    let kept: Vec<Heard> = opener.heard().collect();
    let mut restarted = Opener::new(ring(&[1], 1));
    restarted.restore(kept);
    assert_eq!(open(&mut restarted, ends(1), &recorded), Err(Refusal::Stale));
    restarted.forget(ends(1).source);
    assert_eq!(open(&mut restarted, ends(1), &back), Ok(()));

    let at = |seconds| Duration::from_secs(seconds);
    assert_eq!(Epoch::after(None, at(3)).number(), 3_000_000_000);
    assert_eq!(Epoch::after(Some(Epoch::new(3_000_000_000)), at(3)).number(), 3_000_000_001);
    assert_eq!(Epoch::after(Some(Epoch::new(9_000_000_000)), at(3)).number(), 9_000_000_001);
}

#[test]
fn the_number_of_senders_is_bounded_and_nobody_is_pushed_out() {
    let mut opener = Opener::new(ring(&[1], 1));
    let from = |number: usize| Ends { source: IpAddr::from([10, 0, (number >> 8) as u8, number as u8]), ..ends(1) };
    for number in 0..MOST_SOURCES {
        assert_eq!(open(&mut opener, from(number), &sealer(1).seal(message(51), from(number))), Ok(()));
    }
    let late = from(MOST_SOURCES);
    assert_eq!(open(&mut opener, late, &sealer(1).seal(message(51), late)), Err(Refusal::TooManySources));
    assert_eq!(open(&mut opener, from(0), &sealer(2).seal(message(51), from(0))), Ok(()));
    assert_eq!(opener.heard().count(), MOST_SOURCES);
}

#[test]
fn a_ring_needs_keys_that_cannot_be_guessed() {
    assert_eq!(Key::new(b"fifteen bytes..").unwrap_err(), KeyError::Short(15));
    let keys = BTreeMap::from([(KeyId::new(1), Key::new(&[1; 16]).unwrap())]);
    assert_eq!(format!("{keys:?}"), "{KeyId(1): Key}");
    assert_eq!(Keys::new(keys, KeyId::new(2)).unwrap_err(), KeyError::NotInRing(KeyId::new(2)));
}

#[test]
fn the_mac_is_hmac_sha_256_of_what_is_covered() {
    // RFC 4231 s4.2 ties the library to the standard.
    let key = Key::new(&[0x0b; 20]).unwrap();
    let mac = hmac::sign(key.mac_key(), b"Hi There");
    assert_eq!(mac.as_ref()[..8], [0xb0, 0x34, 0x4c, 0x61, 0xd8, 0xdb, 0x38, 0x53]);
    let covered = covered(ends(1), &[7], &[8]);
    assert_eq!(covered[10..16], [0xff, 0xff, 192, 0, 2, 1]);
    assert_eq!(covered[26..], [0xff, 0xff, 224, 0, 0, 18, 7, 8]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_changed_bit_is_believed(at in 0..12 + TRAILER_BYTES, bit in 0..8) {
        let mut sealed = sealer(5).seal(message(51), ends(1));
        sealed[at] ^= 1_u8 << bit;
        let received = Received { ends: ends(1), hop_limit: 255, payload: &sealed };
        prop_assert!(Opener::new(ring(&[1], 1)).open(&received).is_err());
    }

    #[test]
    fn any_bytes_are_survived(payload in prop::collection::vec(any::<u8>(), 0..200)) {
        let received = Received { ends: ends(1), hop_limit: 255, payload: &payload };
        prop_assert!(Opener::new(ring(&[1], 1)).open(&received).is_err());
    }

    #[test]
    fn numbers_are_taken_in_growing_order_only(numbers in prop::collection::vec((0..4_u64, 0..8_u64), 1..40)) {
        let mut window = Window::default();
        let mut greatest = None;
        for (epoch, number) in numbers {
            let taken = window.take(ends(1).source, KeyId::new(1), Sequence { epoch: Epoch::new(epoch), number });
            prop_assert_eq!(taken.is_ok(), greatest < Some((epoch, number)));
            greatest = greatest.max(Some((epoch, number)));
        }
    }
}
