//! Which authority signed a leaf, told from its serial number alone: that is what servers remember
//! of agents' SVIDs.

use super::signed::random_serial;
use crate::keys::KeyError;

/// Bytes of a serial number that are those of the signer's key identifier. 96 random bits are left,
/// where 64 are asked for.
///
/// # Source
/// CA/Browser Forum Baseline Requirements, 7.1.
const MARK: usize = 4;

/// A serial number for a leaf, big-endian, not 0.
pub(super) fn serial(key_id: &[u8]) -> Result<[u8; 16], KeyError> {
    let mut serial = random_serial()?;
    if let Some(mark) = key_id.first_chunk::<MARK>() {
        serial[..MARK].copy_from_slice(mark);
    }
    Ok(serial)
}

/// Whether the authority `authority_id` (hexadecimal digits) signed the leaf with this serial number
/// (decimal digits), if a server of ours signed it. Another's passes once in four thousand million.
pub fn is_signed_by(serial: &str, authority_id: &str) -> bool {
    let mark = authority_id.get(..2 * MARK).and_then(|mark| u32::from_str_radix(mark, 16).ok());
    let signer = serial.parse::<u128>().ok().map(|serial| serial >> (128 - 8 * MARK));
    mark.is_some() && signer == mark.map(u128::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_number_tells_who_signed() {
        let serial_of = |key_id: &[u8]| u128::from_be_bytes(serial(key_id).unwrap()).to_string();
        let (one, other) = ([0x00, 1, 2, 3, 4], [0xff, 1, 2, 3, 4]);
        for key_id in [one, other] {
            let serial = serial_of(&key_id);
            assert_ne!(serial, serial_of(&key_id));
            assert!(is_signed_by(&serial, &hex::encode(key_id)));
        }
        assert!(!is_signed_by(&serial_of(&one), &hex::encode(other)));
        assert!(!is_signed_by("", &hex::encode(one)) && !is_signed_by("7", ""));
        assert_ne!(serial_of(&[1]), "0");
    }
}
