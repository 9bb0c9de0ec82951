//! Ranges of IP addresses as CIDR writes them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The addresses that share their first bits: `10.0.0.0/8`, `fd00::/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpRange {
    address: IpAddr,
    bits: u8,
}

/// A text that is no range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid CIDR address: {0}")]
pub struct InvalidRange(String);

impl IpRange {
    /// Whether `address` lies in the range. An IPv4 address mapped into IPv6 is an IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(range), IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                (Ipv4Addr::to_bits(range) ^ Ipv4Addr::to_bits(address)) & mask == 0
            }
            (IpAddr::V6(range), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                (Ipv6Addr::to_bits(range) ^ Ipv6Addr::to_bits(address)) & mask == 0
            }
            _ => false,
        }
    }
}

impl FromStr for IpRange {
    type Err = InvalidRange;
    fn from_str(text: &str) -> Result<Self, InvalidRange> {
        let invalid = || InvalidRange(text.to_owned());
        let (address, bits) = text.split_once('/').ok_or_else(invalid)?;
        let address: IpAddr = address.parse().map_err(|_| invalid())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let digits = !bits.is_empty() && bits.bytes().all(|byte| byte.is_ascii_digit());
        let bits = bits.parse().ok().filter(|bits| digits && *bits <= most).ok_or_else(invalid)?;
        Ok(Self { address, bits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_contains_what_shares_its_bits() {
        let contains = |range: &str, address: &str| {
            range.parse::<IpRange>().unwrap().contains(address.parse().unwrap())
        };
        assert!(contains("10.1.0.0/16", "10.1.255.1"));
        assert!(!contains("10.1.0.0/16", "10.2.0.1"));
        assert!(contains("10.1.0.0/16", "::ffff:10.1.2.3"));
        assert!(contains("0.0.0.0/0", "203.0.113.9"));
        assert!(contains("10.0.0.1/32", "10.0.0.1"));
        assert!(!contains("10.0.0.1/32", "10.0.0.2"));
        assert!(contains("fd00::/8", "fd12::1"));
        assert!(!contains("fd00::/8", "10.0.0.1"));
        assert!(contains("::/0", "2001:db8::1"));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["x", "10.0.0.0", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "::/129", "/8"] {
            let error = text.parse::<IpRange>().unwrap_err();
            assert_eq!(error.to_string(), format!("invalid CIDR address: {text}"));
        }
    }
}
