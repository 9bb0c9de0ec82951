//! DER, written by hand: documents are made that no library would make.

/// A value with its tag and length.
pub(crate) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut der = vec![tag];
    match content.len() {
        length @ 0..=0x7f => der.push(u8::try_from(length).expect("a short length")),
        length => {
            let bytes: Vec<u8> =
                length.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
            der.push(0x80 | u8::try_from(bytes.len()).expect("a length of few bytes"));
            der.extend(bytes);
        }
    }
    der.extend(content);
    der
}

/// A `SEQUENCE`.
pub(crate) fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    tlv(0x30, &parts.concat())
}

/// A `SET` of parts as they are.
pub(crate) fn set(parts: &[Vec<u8>]) -> Vec<u8> {
    tlv(0x31, &parts.concat())
}

/// An `AlgorithmIdentifier` whose parameters are NULL; `oid` is the content of the identifier.
pub(crate) fn algorithm(oid: &[u8]) -> Vec<u8> {
    sequence(&[tlv(0x06, oid), tlv(0x05, &[])])
}

/// The parts of a `SEQUENCE`, each with its tag and length.
pub(crate) fn parts(der: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = content(der).0;
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let whole = rest.len() - content(rest).1.len();
        parts.push(rest[..whole].to_vec());
        rest = &rest[whole..];
    }
    parts
}

/// The content of the first value in `der`, and what follows the value.
pub(crate) fn content(der: &[u8]) -> (&[u8], &[u8]) {
    let (start, length) = match der[1] {
        short @ 0..=0x7f => (2, usize::from(short)),
        long => {
            let bytes = usize::from(long & 0x7f);
            let length = der[2..2 + bytes].iter();
            (2 + bytes, length.fold(0, |length, byte| length << 8 | usize::from(*byte)))
        }
    };
    (&der[start..start + length], &der[start + length..])
}
