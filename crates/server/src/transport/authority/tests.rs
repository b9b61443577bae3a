use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use axum::http::uri::Authority;
use proptest::prelude::*;
use tokio::io::{AsyncRead, ReadBuf};

use super::{PREFACE, Repair, frames::MAX_BLOCK_BYTES, huffman};

const MAX_FRAME_BYTES: usize = 16 * 1024;

/// A client whose bytes arrive in these chunks, and are read in pieces of any size.
struct Chunks {
    chunks: VecDeque<Vec<u8>>,
}

impl Chunks {
    fn new(bytes: &[u8], sizes: &[usize]) -> Self {
        let mut rest = bytes;
        let mut chunks = VecDeque::new();
        for &size in sizes.iter().cycle() {
            let (chunk, others) = rest.split_at(size.min(rest.len()));
            chunks.push_back(chunk.to_vec());
            rest = others;
            if rest.is_empty() {
                break;
            }
        }
        Self { chunks }
    }
}

impl AsyncRead for Chunks {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if let Some(mut chunk) = self.chunks.pop_front() {
            let rest = chunk.split_off(chunk.len().min(buffer.remaining()));
            buffer.put_slice(&chunk);
            if !rest.is_empty() {
                self.chunks.push_front(rest);
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// What a reader gets that reads pieces of these sizes.
fn read_in(bytes: &[u8], sizes: &[usize], pieces: &[usize]) -> Vec<u8> {
    let mut client = Chunks::new(bytes, sizes);
    let mut repair = Repair::default();
    let mut cx = Context::from_waker(Waker::noop());
    let mut read = Vec::new();
    for &piece in pieces.iter().cycle() {
        let mut piece = vec![0; piece];
        let mut buffer = ReadBuf::new(&mut piece);
        let polled = repair.poll_read(&mut client, &mut cx, &mut buffer);
        assert!(matches!(polled, Poll::Ready(Ok(()))));
        assert!(repair.held.len() <= MAX_BLOCK_BYTES + super::frames::HEAD_BYTES);
        read.extend_from_slice(buffer.filled());
        if buffer.filled().is_empty() {
            break;
        }
    }
    read
}

fn read(bytes: &[u8]) -> Vec<u8> {
    read_in(bytes, &[1 << 20], &[1 << 20])
}

/// A header as it is to be encoded.
#[derive(Clone, Debug)]
struct Field {
    name: String,
    value: String,
    /// By the tables as far as they have it.
    by_index: bool,
    /// Put into the dynamic table.
    kept: bool,
    huffman: bool,
}

/// An encoder that uses all that HPACK offers.
#[derive(Default)]
struct Encoder {
    table: VecDeque<(String, String)>,
}

impl Encoder {
    fn encode(&mut self, field: &Field, block: &mut Vec<u8>) {
        let Field { name, value, .. } = field;
        if field.by_index {
            let whole = |it: &(String, String)| it == &(name.clone(), value.clone());
            if name == ":authority" && value.is_empty() {
                return push_integer(1, 7, 0x80, block);
            }
            if let Some(index) = self.table.iter().position(whole) {
                return push_integer(62 + index, 7, 0x80, block);
            }
        }
        let known = self.table.iter().position(|(it, _)| it == name);
        let index = match name.as_str() {
            _ if !field.by_index => 0,
            ":authority" if known.is_none() => 1,
            ":path" => 4,
            _ => known.map_or(0, |index| 62 + index),
        };
        if field.kept {
            push_integer(index, 6, 0x40, block);
            self.table.push_front((name.clone(), value.clone()));
            let size = |(name, value): &(String, String)| name.len() + value.len() + 32;
            while self.table.iter().map(size).sum::<usize>() > 4096 {
                self.table.pop_back();
            }
        } else {
            push_integer(index, 4, 0x10, block);
        }
        if index == 0 {
            push_text(name, field.huffman, block);
        }
        push_text(value, field.huffman, block);
    }
}

fn push_integer(number: usize, bits: u32, kind: u8, block: &mut Vec<u8>) {
    let mask = (1 << bits) - 1;
    if number < mask {
        return block.push(kind | u8::try_from(number).unwrap());
    }
    block.push(kind | u8::try_from(mask).unwrap());
    let mut rest = number - mask;
    while rest >= 128 {
        block.push(u8::try_from(rest % 128).unwrap() | 0x80);
        rest /= 128;
    }
    block.push(u8::try_from(rest).unwrap());
}

fn push_text(text: &str, is_huffman: bool, block: &mut Vec<u8>) {
    let (kind, bytes) = if is_huffman {
        (0x80, huffman::encode(text.as_bytes()))
    } else {
        (0, text.as_bytes().to_vec())
    };
    push_integer(bytes.len(), 7, kind, block);
    block.extend(bytes);
}

/// What a client sends.
#[derive(Clone, Debug)]
enum Sent {
    Headers {
        fields: Vec<Field>,
        padding: Option<u8>,
        priority: bool,
        end_stream: bool,
        /// Where the block is parted.
        parts: usize,
    },
    Other {
        kind: u8,
        content: Vec<u8>,
    },
}

fn frame(kind: u8, flags: u8, stream: u8, content: &[u8], bytes: &mut Vec<u8>) {
    let length = u32::try_from(content.len()).unwrap();
    bytes.extend_from_slice(&length.to_be_bytes()[1..]);
    bytes.extend_from_slice(&[kind, flags, 0, 0, 0, stream]);
    bytes.extend_from_slice(content);
}

fn encode(sent: &[Sent]) -> Vec<u8> {
    let mut encoder = Encoder::default();
    let mut bytes = PREFACE.to_vec();
    for (sent, stream) in sent.iter().zip((1..).step_by(2)) {
        match sent {
            Sent::Other { kind, content } => frame(*kind, 0, stream, content, &mut bytes),
            Sent::Headers {
                fields,
                padding,
                priority,
                end_stream,
                parts,
            } => {
                let mut block = Vec::new();
                for field in fields {
                    encoder.encode(field, &mut block);
                }
                let size = block.len().div_ceil(*parts).clamp(1, 16000);
                let mut blocks = block.chunks(size).peekable();
                let mut content = Vec::new();
                content.extend(*padding);
                if *priority {
                    content.extend([0x80, 1, 2, 3, 4]);
                }
                content.extend_from_slice(blocks.next().unwrap_or_default());
                content.extend(vec![0; padding.unwrap_or(0).into()]);
                let mut flags = u8::from(*end_stream)
                    | u8::from(padding.is_some()) << 3
                    | u8::from(*priority) << 5;
                flags |= u8::from(blocks.peek().is_none()) << 2;
                frame(1, flags, stream, &content, &mut bytes);
                while let Some(block) = blocks.next() {
                    let flags = u8::from(blocks.peek().is_none()) << 2;
                    frame(9, flags, stream, block, &mut bytes);
                }
            }
        }
    }
    bytes
}

/// A frame, or the headers of several.
#[derive(Debug, PartialEq)]
enum Got {
    Headers {
        stream: u8,
        end_stream: bool,
        priority: Option<Vec<u8>>,
        fields: Vec<(String, String)>,
    },
    Other(Vec<u8>),
}

/// What an independent reader makes of it.
fn decode(bytes: &[u8]) -> Vec<Got> {
    let mut rest = bytes.strip_prefix(PREFACE).unwrap();
    let mut decoder = loona_hpack::Decoder::new();
    let mut got = Vec::new();
    while !rest.is_empty() {
        let (mut head, mut content) = take(&mut rest);
        if head[3] != 1 {
            got.push(Got::Other([head, content].concat()));
            continue;
        }
        if head[4] & 8 != 0 {
            content = &content[1..content.len() - usize::from(content[0])];
        }
        let (stream, end_stream) = (head[8], head[4] & 1 != 0);
        let mut priority = None;
        if head[4] & 0x20 != 0 {
            priority = Some(content[..5].to_vec());
            content = &content[5..];
        }
        let mut block = content.to_vec();
        while head[4] & 4 == 0 {
            (head, content) = take(&mut rest);
            assert_eq!((head[3], head[8]), (9, stream));
            block.extend_from_slice(content);
        }
        let fields = decoder.decode(&block).unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let fields = fields.into_iter();
        got.push(Got::Headers {
            stream,
            end_stream,
            priority,
            fields: fields
                .map(|(name, value)| (text(name), text(value)))
                .collect(),
        });
    }
    got
}

fn take<'a>(rest: &mut &'a [u8]) -> (&'a [u8], &'a [u8]) {
    let length = usize::from(rest[1]) << 8 | usize::from(rest[2]);
    assert!(rest[0] == 0 && length <= MAX_FRAME_BYTES);
    let (head, others) = rest.split_at(9);
    let (content, others) = others.split_at(length);
    *rest = others;
    (head, content)
}

/// The same with its authorities repaired.
fn repaired(mut got: Vec<Got>) -> Vec<Got> {
    for got in &mut got {
        let Got::Headers { fields, .. } = got else {
            continue;
        };
        for (name, value) in fields {
            if name == ":authority" && value.parse::<Authority>().is_err() {
                let length = match value.len() {
                    0 => 9,
                    length => length,
                };
                *value = "localhost"
                    .chars()
                    .chain(std::iter::repeat('-'))
                    .take(length)
                    .collect();
                assert!(value.parse::<Authority>().is_ok());
            }
        }
    }
    got
}

fn field() -> impl Strategy<Value = Field> {
    let name = prop_oneof![
        3 => Just(":authority".to_owned()),
        1 => Just(":path".to_owned()),
        2 => "x-[a-c]",
    ];
    let value = prop_oneof![
        Just(String::new()),
        Just("127.0.0.1:2379".to_owned()),
        Just("#initially=[http://a:1;http://b:2]".to_owned()),
        Just("/run/store".to_owned()),
        "[ -~]{0,20}",
        "[a-z/]{900,1300}",
        Just("/".repeat(5000)),
    ];
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (name, value, flags).prop_map(|(name, value, (by_index, kept, huffman))| Field {
        // An empty authority is a field of the static table.
        by_index: by_index || value.is_empty(),
        name,
        value,
        kept,
        huffman,
    })
}

fn sent() -> impl Strategy<Value = Vec<Sent>> {
    let headers = (
        proptest::collection::vec(field(), 0..6),
        proptest::option::of(any::<u8>()),
        any::<bool>(),
        any::<bool>(),
        1..5_usize,
    );
    let headers =
        headers.prop_map(
            |(fields, padding, priority, end_stream, parts)| Sent::Headers {
                fields,
                padding,
                priority,
                end_stream,
                parts,
            },
        );
    let content = proptest::collection::vec(any::<u8>(), 0..300);
    let kind = prop_oneof![Just(0_u8), Just(4), Just(200)];
    let other = (kind, content).prop_map(|(kind, content)| Sent::Other { kind, content });
    proptest::collection::vec(prop_oneof![3 => headers, 1 => other], 0..12)
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::vec(prop_oneof![1..12_usize, 1..2000_usize], 1..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn malformed_authorities_are_repaired_and_all_else_survives(sent in sent()) {
        let sent = encode(&sent);
        prop_assert_eq!(decode(&read(&sent)), repaired(decode(&sent)));
    }

    #[test]
    fn any_chunks_give_the_same(sent in sent(), sizes in sizes(), pieces in sizes()) {
        let sent = encode(&sent);
        prop_assert_eq!(read_in(&sent, &sizes, &pieces), read(&sent));
    }

    #[test]
    fn whatever_is_no_http_2_is_left_alone(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        seen in 0..PREFACE.len(),
        sizes in sizes(),
    ) {
        let mut sent = PREFACE[..seen].to_vec();
        sent.push(b'#');
        sent.extend(bytes);
        prop_assert_eq!(read_in(&sent, &sizes, &[7]), sent);
    }

    #[test]
    fn broken_frames_do_no_harm(
        sent in sent(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        sizes in sizes(),
    ) {
        let mut sent = encode(&sent);
        for (place, byte) in changes {
            let place = place.index(sent.len());
            sent[place] = byte;
        }
        let got = read_in(&sent, &sizes, &[4096]);
        prop_assert!(got.len() <= 2 * sent.len() + 64);
        prop_assert_eq!(got, read(&sent));
    }
}

/// A request of the kind that a client of etcd sends.
fn request(authority: &str) -> Vec<u8> {
    let field = |name: &str, value: &str| Field {
        name: name.to_owned(),
        value: value.to_owned(),
        by_index: true,
        kept: true,
        huffman: true,
    };
    encode(&[Sent::Headers {
        fields: vec![
            field(":path", "/etcdserverpb.KV/Range"),
            field(":authority", authority),
        ],
        padding: None,
        priority: false,
        end_stream: false,
        parts: 1,
    }])
}

#[test]
fn good_requests_are_not_touched() {
    for authority in ["127.0.0.1:2379", "localhost", "[::1]:2379", "store.example"] {
        let sent = request(authority);
        assert_eq!(read(&sent), sent, "{authority}");
    }
}

#[test]
fn what_clients_send_is_repaired() {
    for authority in [
        "",
        "/run/store",
        "http://127.0.0.1:2379",
        "#initially=[a;b]",
        "%2Frun",
    ] {
        let got = decode(&read(&request(authority)));
        let [Got::Headers { fields, .. }] = &got[..] else {
            panic!("one request");
        };
        assert!(
            fields[1].1.starts_with("localhost"[..].split_at(1).0),
            "{fields:?}"
        );
        assert!(fields[1].1.parse::<Authority>().is_ok(), "{fields:?}");
    }
}

#[test]
fn headers_without_end_are_passed_on_before_they_fill_the_memory() {
    let mut sent = PREFACE.to_vec();
    frame(1, 0, 1, &[0x82; 16000], &mut sent);
    for _ in 0..1000 {
        frame(9, 0, 1, &[0x82; 1000], &mut sent);
    }
    assert_eq!(read_in(&sent, &[1000], &[4096]), sent);
}

#[test]
fn what_a_client_leaves_unfinished_is_passed_on() {
    let sent = request("/run/store");
    for length in 0..sent.len() {
        assert_eq!(read_in(&sent[..length], &[3], &[5]), sent[..length]);
    }
}

#[test]
fn many_broken_requests_at_once_are_all_repaired() {
    let mut sent = PREFACE.to_vec();
    for _ in 0..100_000 {
        frame(1, 5, 1, &[0x81], &mut sent);
    }
    let got = decode(&read(&sent));
    assert_eq!(got.len(), 100_000);
    let localhost = (":authority".to_owned(), "localhost".to_owned());
    for got in got {
        assert!(matches!(got, Got::Headers { fields, .. } if fields == [localhost.clone()]));
    }
}
