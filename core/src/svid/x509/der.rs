//! A small writer of DER: what is nested is written in place, and lengths follow.

/// Tags that certificates use.
pub(crate) mod tag {
    pub(crate) const BOOLEAN: u8 = 0x01;
    pub(crate) const INTEGER: u8 = 0x02;
    pub(crate) const BIT_STRING: u8 = 0x03;
    pub(crate) const OCTET_STRING: u8 = 0x04;
    pub(crate) const OBJECT_IDENTIFIER: u8 = 0x06;
    pub(crate) const UTF8_STRING: u8 = 0x0c;
    pub(crate) const PRINTABLE_STRING: u8 = 0x13;
    pub(crate) const UTC_TIME: u8 = 0x17;
    pub(crate) const GENERALIZED_TIME: u8 = 0x18;
    pub(crate) const SEQUENCE: u8 = 0x30;
    pub(crate) const SET: u8 = 0x31;

    /// A primitive value with the number of its place.
    pub(crate) const fn context(number: u8) -> u8 {
        0x80 | number
    }

    /// A constructed value with the number of its place.
    pub(crate) const fn context_constructed(number: u8) -> u8 {
        0xa0 | number
    }
}

/// DER in the making.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// Appends a value that is encoded already.
    pub(crate) fn raw(&mut self, der: &[u8]) -> &mut Self {
        self.0.extend_from_slice(der);
        self
    }

    /// Appends a primitive value.
    pub(crate) fn value(&mut self, tag: u8, content: &[u8]) -> &mut Self {
        self.nested(tag, |writer| {
            writer.raw(content);
        })
    }

    /// Appends a value whose content `fill` writes.
    pub(crate) fn nested(&mut self, tag: u8, fill: impl FnOnce(&mut Self)) -> &mut Self {
        self.0.push(tag);
        let start = self.0.len();
        fill(self);
        let length = self.0.len() - start;
        if length < 0x80 {
            self.0.insert(start, length as u8);
        } else {
            let bytes = length.to_be_bytes();
            let bytes = &bytes[(length.leading_zeros() / 8) as usize..];
            let prefix = std::iter::once(0x80 | bytes.len() as u8).chain(bytes.iter().copied());
            self.0.splice(start..start, prefix);
        }
        self
    }

    /// Appends a positive integer given as big-endian bytes.
    pub(crate) fn positive_integer(&mut self, bytes: &[u8]) -> &mut Self {
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        let significant = &bytes[zeros..];
        self.nested(tag::INTEGER, |writer| {
            if significant.first().is_none_or(|byte| byte & 0x80 != 0) {
                writer.0.push(0);
            }
            writer.raw(significant);
        })
    }

    /// Appends a bit string of whole bytes.
    pub(crate) fn bit_string(&mut self, bytes: &[u8]) -> &mut Self {
        self.nested(tag::BIT_STRING, |writer| {
            writer.0.push(0);
            writer.raw(bytes);
        })
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_take_as_many_bytes_as_they_need() {
        for (length, prefix) in [
            (0usize, vec![4, 0]),
            (127, vec![4, 127]),
            (128, vec![4, 0x81, 128]),
            (256, vec![4, 0x82, 1, 0]),
            (70_000, vec![4, 0x83, 1, 0x11, 0x70]),
        ] {
            let mut writer = Writer::default();
            writer.value(tag::OCTET_STRING, &vec![7; length]);
            let der = writer.finish();
            assert_eq!(der[..prefix.len()], prefix);
            assert_eq!(der.len(), prefix.len() + length);
        }
    }

    #[test]
    fn integers_are_minimal_and_positive() {
        for (bytes, content) in
            [(&[0, 0][..], &[0][..]), (&[0, 1], &[1]), (&[0x80], &[0, 0x80]), (&[0x7f], &[0x7f])]
        {
            let mut writer = Writer::default();
            writer.positive_integer(bytes);
            assert_eq!(writer.finish()[2..], *content);
        }
    }
}
