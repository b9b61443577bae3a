//! The fields of a header block, as HPACK encodes them (RFC 7541).

use std::iter;

use axum::http::uri::Authority;

use super::huffman;

const NAME: &[u8] = b":authority";
/// The bytes of the name in Huffman's code, so that no other name has to be decoded.
const NAME_ENCODED_BYTES: usize = 8;

/// The entry of the static table that is an empty authority, and the last entry of that table.
const AUTHORITY: usize = 1;
const LAST_STATIC: usize = 61;

/// What stands in for an authority, as far as it has room there.
const STAND_IN: &[u8] = b"localhost";

/// The header block is malformed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// What has to be known of the blocks that went before.
#[derive(Debug, Default)]
pub(super) struct Fields {
    /// The last fields that the client had put into the dynamic table, a bit for each that is named
    /// `:authority`, and the latest is the lowest. The table has room for 128 fields at most. It may
    /// have dropped some of them, which is not noted, since then no block may name them any more.
    authorities: u128,
}

impl Fields {
    /// The block with its authority repaired, or none if that needs no repair.
    ///
    /// What stands in is as long as what it replaces, so that the reader's table drops fields just
    /// when the client believes that it does; and every other byte stays as it is. An empty authority
    /// alone grows, by a byte; clients name that by the static table, which puts it into no table.
    pub(super) fn repair(&mut self, block: &[u8]) -> Result<Option<Vec<u8>>, Malformed> {
        let mut repaired: Option<Vec<u8>> = None;
        let mut copied = 0;
        let mut rest = Rest { block, at: 0 };
        while let Some(&first) = block.get(rest.at) {
            let field = rest.at;
            let replaced = if first & 0x80 != 0 {
                let index = rest.integer(7)?;
                // A literal, of the name at that index.
                (index == AUTHORITY).then_some((field, &[1][..], STAND_IN.len()))
            } else if first & 0xe0 == 0x20 {
                rest.integer(5)?; // the client resizes its table
                None
            } else {
                let value = self.literal(&mut rest, first & 0x40 != 0)?;
                value.map(|(at, length)| (at, &[][..], length.max(1)))
            };
            if let Some((from, before, length)) = replaced {
                let repaired = repaired.get_or_insert_default();
                repaired.extend_from_slice(&block[copied..from]);
                repaired.extend_from_slice(before);
                push_stand_in(length, repaired);
                copied = rest.at;
            }
        }
        if let Some(repaired) = &mut repaired {
            repaired.extend_from_slice(&block[copied..]);
        }
        Ok(repaired)
    }

    /// Reads a field that is spelled out. If it is an authority in need of repair, tells where its
    /// value begins and how long the text of that is.
    fn literal(
        &mut self,
        rest: &mut Rest<'_>,
        is_kept: bool,
    ) -> Result<Option<(usize, usize)>, Malformed> {
        let is_authority = match rest.integer(if is_kept { 6 } else { 4 })? {
            0 => rest.text()?.is_name(),
            AUTHORITY => true,
            index if index <= LAST_STATIC => false,
            index => {
                let age = u32::try_from(index - LAST_STATIC - 1).map_err(|_| Malformed)?;
                let bit = self.authorities.checked_shr(age);
                bit.is_some_and(|bit| bit & 1 == 1)
            }
        };
        if is_kept {
            self.authorities = self.authorities << 1 | u128::from(is_authority);
        }
        let at = rest.at;
        let value = rest.text()?;
        if !is_authority {
            return Ok(None);
        }
        Ok(value.malformed_authority().map(|length| (at, length)))
    }
}

/// What is still to be read of a block.
struct Rest<'a> {
    block: &'a [u8],
    at: usize,
}

impl<'a> Rest<'a> {
    fn byte(&mut self) -> Result<u8, Malformed> {
        let byte = self.block.get(self.at).ok_or(Malformed)?;
        self.at += 1;
        Ok(*byte)
    }

    /// A number that begins in the lowest `bits` of a byte.
    fn integer(&mut self, bits: u32) -> Result<usize, Malformed> {
        let mask = (1 << bits) - 1;
        let number = usize::from(self.byte()?) & mask;
        if number < mask {
            return Ok(number);
        }
        let mut number = mask;
        // Four more bytes hold more than any block may have.
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            number += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Malformed)
    }

    fn text(&mut self) -> Result<Text<'a>, Malformed> {
        let first = self.block.get(self.at).ok_or(Malformed)?;
        let is_huffman = first & 0x80 != 0;
        let length = self.integer(7)?;
        let bytes = self.block[self.at..].get(..length).ok_or(Malformed)?;
        self.at += length;
        Ok(Text { is_huffman, bytes })
    }
}

/// A name or a value.
struct Text<'a> {
    is_huffman: bool,
    bytes: &'a [u8],
}

impl Text<'_> {
    fn is_name(&self) -> bool {
        if !self.is_huffman {
            return self.bytes == NAME;
        }
        self.bytes.len() == NAME_ENCODED_BYTES
            && huffman::decode(self.bytes).is_some_and(|name| name == NAME)
    }

    /// The length of an authority that is none. A text that cannot be decoded is left to the reader.
    fn malformed_authority(&self) -> Option<usize> {
        let is_malformed = |text: &[u8]| Authority::try_from(text).is_err();
        if self.is_huffman {
            let text = huffman::decode(self.bytes)?;
            return is_malformed(&text).then_some(text.len());
        }
        is_malformed(self.bytes).then_some(self.bytes.len())
    }
}

/// Adds a text of so many bytes that is a good authority.
fn push_stand_in(length: usize, block: &mut Vec<u8>) {
    push_integer(length, block);
    let text = STAND_IN.iter().copied().chain(iter::repeat(b'-'));
    block.extend(text.take(length));
}

/// Adds a number that begins in the lowest seven bits of a byte.
fn push_integer(number: usize, block: &mut Vec<u8>) {
    const MASK: usize = 0x7f;
    if number < MASK {
        block.push(number as u8);
        return;
    }
    block.push(MASK as u8);
    let mut rest = number - MASK;
    while rest > MASK {
        block.push((rest & MASK) as u8 | 0x80);
        rest >>= 7;
    }
    block.push(rest as u8);
}
