//! The Huffman code of HTTP/2's headers (RFC 7541, appendix B).

/// The length in bits of each byte's code, and last that of the end, which no text contains. The
/// codes follow from that: shorter ones come first, and of equal length the smaller byte's.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, //
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28, //
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, //
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, //
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, //
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, //
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, //
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, //
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, //
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, //
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, //
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, //
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, //
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, //
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, //
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, //
    30, //
];

const END: u16 = 256;
const SHORTEST: usize = 5;
const LONGEST: usize = 30;

/// The codes of one length.
#[derive(Clone, Copy)]
struct Group {
    /// The first of them; the others follow one by one.
    first: u32,
    count: u32,
    /// Where their symbols begin among all.
    symbols: usize,
}

struct Code {
    groups: [Group; LONGEST + 1],
    symbols: [u16; LENGTHS.len()],
}

static CODE: Code = code();

const fn code() -> Code {
    let none = Group {
        first: 0,
        count: 0,
        symbols: 0,
    };
    let mut groups = [none; LONGEST + 1];
    let mut symbols = [0; LENGTHS.len()];
    let (mut next, mut found) = (0, 0);
    let mut length = SHORTEST;
    while length <= LONGEST {
        next <<= 1;
        groups[length].first = next;
        groups[length].symbols = found;
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as usize == length {
                symbols[found] = symbol as u16;
                found += 1;
                groups[length].count += 1;
                next += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    Code { groups, symbols }
}

/// The text that the bytes stand for, if they stand for one.
pub(super) fn decode(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(bytes.len() * 8 / SHORTEST);
    let (mut code, mut length) = (0_u32, 0);
    for &byte in bytes {
        for shift in (0..8).rev() {
            code = code << 1 | u32::from(byte >> shift & 1);
            length += 1;
            let group = CODE.groups.get(length)?;
            let place = code.wrapping_sub(group.first);
            if place < group.count {
                let symbol = CODE.symbols[group.symbols + place as usize];
                text.push(u8::try_from(symbol).ok().filter(|_| symbol != END)?);
                (code, length) = (0, 0);
            }
        }
    }
    // What is left of the last byte is filled with the beginning of the end's code: ones.
    let is_padding = length < 8 && code == (1 << length) - 1;
    is_padding.then_some(text)
}

#[cfg(test)]
pub(super) fn encode(text: &[u8]) -> Vec<u8> {
    let mut bits = Vec::new();
    for &byte in text {
        let length = usize::from(LENGTHS[usize::from(byte)]);
        let group = CODE.groups[length];
        let symbols = &CODE.symbols[group.symbols..];
        let place = symbols.iter().position(|&it| it == u16::from(byte));
        let code = group.first + u32::try_from(place.expect("it has a code")).expect("few codes");
        bits.extend((0..length).rev().map(|shift| code >> shift & 1 == 1));
    }
    while bits.len() % 8 != 0 {
        bits.push(true);
    }
    bits.chunks(8)
        .map(|bits| bits.iter().fold(0, |byte, &bit| byte << 1 | u8::from(bit)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_examples_of_the_standard_are_decoded() {
        let encoded = [
            0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff,
        ];
        assert_eq!(decode(&encoded).as_deref(), Some(&b"www.example.com"[..]));
        assert_eq!(encode(b"www.example.com"), encoded);
        assert_eq!(decode(&[]).as_deref(), Some(&b""[..]));
    }

    #[test]
    fn what_is_no_text_is_refused() {
        for bytes in [&[0xff][..], &[0xff; 4], &[0x00], &[0x1f, 0xff], &[0xf8]] {
            let oracle = loona_hpack::huffman::HuffmanDecoder::new().decode(bytes);
            assert_eq!(decode(bytes), oracle.ok(), "{bytes:x?}");
        }
    }

    proptest! {
        #[test]
        fn every_text_survives(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(decode(&encode(&text)), Some(text));
        }

        #[test]
        fn another_decoder_says_the_same(bytes in proptest::collection::vec(any::<u8>(), 0..24)) {
            let oracle = loona_hpack::huffman::HuffmanDecoder::new().decode(&bytes);
            prop_assert_eq!(decode(&bytes), oracle.ok());
        }
    }
}
