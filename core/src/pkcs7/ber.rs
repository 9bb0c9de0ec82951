//! A reader of BER as far as signed messages use it.
//!
//! Whoever sends a message writes parts of it while it does not know their length yet: those parts
//! have an indefinite length, and octets may come in pieces. Both are read; a length that is
//! written longer than it need be is not. What the reader goes through follows from the calls
//! alone, never from the input: it neither recurses nor looks ahead for an end.

use std::borrow::Cow;

use super::Pkcs7Error;

pub(super) const INTEGER: u8 = 0x02;
pub(super) const OCTETS: u8 = 0x04;
pub(super) const NULL: u8 = 0x05;
pub(super) const OID: u8 = 0x06;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;
pub(super) const CONTEXT_0: u8 = 0xa0;
const OCTETS_IN_PIECES: u8 = 0x24;
/// What ends a part of indefinite length.
const END: &[u8] = &[0, 0];

/// What is left of a part.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    indefinite: bool,
}

enum Length {
    Definite(usize),
    Indefinite,
}

impl<'a> Reader<'a> {
    pub(super) fn new(input: &'a [u8]) -> Self {
        Self { rest: input, indefinite: false }
    }

    /// Whether the part ends here.
    pub(super) fn at_end(&self) -> bool {
        if self.indefinite { self.rest.starts_with(END) } else { self.rest.is_empty() }
    }

    /// Whether an element with this tag comes next.
    pub(super) fn comes(&self, tag: u8) -> bool {
        self.rest.first() == Some(&tag)
    }

    /// Reads the inside of an element, which must be read to its end.
    pub(super) fn inside<T>(
        &mut self,
        tag: u8,
        read: impl FnOnce(&mut Self) -> Result<T, Pkcs7Error>,
    ) -> Result<T, Pkcs7Error> {
        let (part, rest) = match self.header(tag)? {
            Length::Definite(length) => {
                let (part, rest) = self.split(length)?;
                (part, Some(rest))
            }
            Length::Indefinite => (self.rest, None),
        };
        let mut inner = Self { rest: part, indefinite: rest.is_none() };
        let value = read(&mut inner)?;
        if !inner.at_end() {
            return Err(Pkcs7Error::Shape("an element holds more than it should"));
        }
        self.rest = rest.unwrap_or_else(|| &inner.rest[END.len()..]);
        Ok(value)
    }

    /// The contents of an element of definite length.
    pub(super) fn contents(&mut self, tag: u8) -> Result<&'a [u8], Pkcs7Error> {
        let Length::Definite(length) = self.header(tag)? else {
            return Err(Pkcs7Error::Shape("a length is indefinite where it must not be"));
        };
        let (contents, rest) = self.split(length)?;
        self.rest = rest;
        Ok(contents)
    }

    /// An element of definite length with its tag.
    pub(super) fn whole(&mut self, tag: u8) -> Result<&'a [u8], Pkcs7Error> {
        let before = self.rest;
        self.contents(tag)?;
        Ok(&before[..before.len() - self.rest.len()])
    }

    /// Octets, put together where they come in pieces.
    pub(super) fn octets(&mut self) -> Result<Cow<'a, [u8]>, Pkcs7Error> {
        if !self.comes(OCTETS_IN_PIECES) {
            return self.contents(OCTETS).map(Cow::Borrowed);
        }
        let pieces = self.inside(OCTETS_IN_PIECES, |pieces| {
            let mut octets = Vec::new();
            while !pieces.at_end() {
                octets.extend_from_slice(pieces.contents(OCTETS)?);
            }
            Ok(octets)
        });
        pieces.map(Cow::Owned)
    }

    /// The end of the input.
    pub(super) fn finish(self) -> Result<(), Pkcs7Error> {
        if self.rest.is_empty() { Ok(()) } else { Err(Pkcs7Error::Shape("bytes follow its end")) }
    }

    fn split(&self, length: usize) -> Result<(&'a [u8], &'a [u8]), Pkcs7Error> {
        self.rest.split_at_checked(length).ok_or(TRUNCATED)
    }

    fn header(&mut self, tag: u8) -> Result<Length, Pkcs7Error> {
        let (found, rest) = self.rest.split_first().ok_or(TRUNCATED)?;
        if *found != tag {
            return Err(Pkcs7Error::Shape("an element is not the one that belongs there"));
        }
        let (first, rest) = rest.split_first().ok_or(TRUNCATED)?;
        self.rest = rest;
        match *first {
            short @ 0..=0x7f => Ok(Length::Definite(usize::from(short))),
            0x80 => Ok(Length::Indefinite),
            long => {
                let (digits, rest) =
                    self.rest.split_at_checked(usize::from(long & 0x7f)).ok_or(TRUNCATED)?;
                self.rest = rest;
                long_length(digits)
            }
        }
    }
}

const TRUNCATED: Pkcs7Error = Pkcs7Error::Shape("it ends too early");

fn long_length(digits: &[u8]) -> Result<Length, Pkcs7Error> {
    if digits.len() > 4 {
        return Err(Pkcs7Error::Shape("a length is out of bounds"));
    }
    let length = digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit));
    if digits[0] == 0 || length < 0x80 {
        return Err(Pkcs7Error::Shape("a length is written longer than it need be"));
    }
    Ok(Length::Definite(length))
}
