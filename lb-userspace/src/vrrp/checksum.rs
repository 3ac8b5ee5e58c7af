//! The Internet checksum of an advert (RFC 1071), with or without a pseudo-header.

use std::net::IpAddr;

/// VRRP's protocol number.
const PROTOCOL: u8 = 112;

/// The one's complement sum of a message after what comes before it; 0 for a message whose checksum is right.
pub(super) fn checksum(message: &[u8], before: u64) -> u16 {
    let mut sum = before + sum(message);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// RFC 9293 s3.1 for IPv4, RFC 8200 s8.1 for IPv6: both sum up to the same fields.
pub(super) fn pseudo_header(source: IpAddr, destination: IpAddr, length: usize) -> u64 {
    let of = |address| match address {
        IpAddr::V4(v4) => sum(&v4.octets()),
        IpAddr::V6(v6) => sum(&v6.octets()),
    };
    of(source) + of(destination) + length as u64 + u64::from(PROTOCOL)
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.chunks(2).map(|pair| u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071_sums_up() {
        // RFC 1071 s3: the sum is ddf2.
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7], 0), !0xddf2);
        assert_eq!(checksum(&[0x12, 0x34, 0x56], 0), !(0x1234 + 0x5600));
        assert_eq!(checksum(&[], 0), 0xffff);
    }
}
