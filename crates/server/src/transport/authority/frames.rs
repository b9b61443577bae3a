//! The frames of HTTP/2 (RFC 9113), as far as they carry headers.

use std::{borrow::Cow, ops::Range};

use super::fields::Fields;

/// What every frame begins with: the length of the rest, a kind, flags and a stream.
pub(super) const HEAD_BYTES: usize = 9;

/// The longest frame that a client may send, since the server asks for no longer ones.
const MAX_FRAME_BYTES: usize = 16 * 1024;

/// The longest header block, with its frames, that is looked at. Nobody serves such long ones.
pub(super) const MAX_BLOCK_BYTES: usize = 64 * 1024;

const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 0x01;
const END_HEADERS: u8 = 0x04;
const PADDED: u8 = 0x08;
const PRIORITY: u8 = 0x20;

const PRIORITY_BYTES: usize = 5;

/// What is to be done with the first bytes of some, which begin with a frame.
pub(super) enum Step {
    /// This frame, of so many bytes, is to be passed as it is.
    Pass(usize),
    /// So many bytes are to be replaced.
    Replace(usize, Vec<u8>),
    /// More bytes are needed to tell.
    Wait,
    /// The client breaks the rules, or is beyond all measure: its reader shall judge that, so from
    /// here on all bytes are to be passed as they are.
    Resign,
}

struct Head {
    length: usize,
    kind: u8,
    flags: u8,
    stream: [u8; 4],
}

impl Head {
    fn read(bytes: &[u8]) -> Option<Self> {
        let &[a, b, c, kind, flags, ref stream @ ..] = bytes.first_chunk::<HEAD_BYTES>()?;
        Some(Self {
            length: usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c),
            kind,
            flags,
            stream: *stream,
        })
    }

    fn push(&self, frames: &mut Vec<u8>) {
        let length = self.length as u32;
        frames.extend_from_slice(&length.to_be_bytes()[1..]);
        frames.extend_from_slice(&[self.kind, self.flags]);
        frames.extend_from_slice(&self.stream);
    }
}

/// Looks at the frame that the bytes begin with.
pub(super) fn step(bytes: &[u8], fields: &mut Fields) -> Step {
    let Some(head) = Head::read(bytes) else {
        return Step::Wait;
    };
    if head.kind != HEADERS {
        return Step::Pass(HEAD_BYTES + head.length);
    }
    let (taken, parts) = match find_block(bytes) {
        Found::Whole { taken, parts } => (taken, parts),
        Found::Part => return Step::Wait,
        Found::Malformed => return Step::Resign,
    };
    let Some(first) = first_part(&head, parts[0].clone(), bytes) else {
        return Step::Resign;
    };
    let block = match &parts[1..] {
        [] => Cow::Borrowed(&bytes[first.clone()]),
        others => {
            let others = others.iter().map(|part| &bytes[part.clone()]);
            let all: Vec<_> = [&bytes[first.clone()]].into_iter().chain(others).collect();
            Cow::Owned(all.concat())
        }
    };
    let Ok(repaired) = fields.repair(&block) else {
        return Step::Resign;
    };
    let Some(repaired) = repaired else {
        return Step::Pass(taken);
    };
    let priority = if head.flags & PRIORITY == 0 {
        &[]
    } else {
        &bytes[first.start - PRIORITY_BYTES..first.start]
    };
    Step::Replace(taken, frames_of(&head, priority, &repaired))
}

/// What the bytes have of the header block that they begin with.
enum Found {
    /// All of it: so many bytes, and in them the contents of its frames.
    Whole {
        taken: usize,
        parts: Vec<Range<usize>>,
    },
    Part,
    Malformed,
}

fn find_block(bytes: &[u8]) -> Found {
    let mut parts = Vec::new();
    let mut at = 0;
    let mut stream = None;
    loop {
        let Some(head) = Head::read(&bytes[at..]) else {
            return Found::Part;
        };
        let continues = head.kind == CONTINUATION;
        let is_due = *stream.get_or_insert(head.stream) == head.stream && continues == (at > 0);
        let start = at + HEAD_BYTES;
        at = start + head.length;
        if !is_due || head.length > MAX_FRAME_BYTES || at > MAX_BLOCK_BYTES {
            return Found::Malformed;
        }
        if at > bytes.len() {
            return Found::Part;
        }
        parts.push(start..at);
        if head.flags & END_HEADERS != 0 {
            return Found::Whole { taken: at, parts };
        }
    }
}

/// The part of the block in the first frame, without its padding and its priority.
fn first_part(head: &Head, content: Range<usize>, bytes: &[u8]) -> Option<Range<usize>> {
    let Range { mut start, mut end } = content;
    if head.flags & PADDED != 0 {
        let padding = *bytes[start..end].first()?;
        start += 1;
        end = end.checked_sub(usize::from(padding))?;
    }
    if head.flags & PRIORITY != 0 {
        start += PRIORITY_BYTES;
    }
    (start <= end).then_some(start..end)
}

/// The frames of a block in place of those that it came in.
fn frames_of(head: &Head, priority: &[u8], block: &[u8]) -> Vec<u8> {
    let mut frames = Vec::with_capacity(block.len() + 4 * HEAD_BYTES);
    let mut kind = HEADERS;
    let mut flags = head.flags & (END_STREAM | PRIORITY);
    let mut before = priority;
    let mut rest = block;
    loop {
        let (part, others) = rest.split_at(rest.len().min(MAX_FRAME_BYTES - before.len()));
        if others.is_empty() {
            flags |= END_HEADERS;
        }
        let head = Head {
            length: before.len() + part.len(),
            kind,
            flags,
            stream: head.stream,
        };
        head.push(&mut frames);
        frames.extend_from_slice(before);
        frames.extend_from_slice(part);
        if others.is_empty() {
            return frames;
        }
        (kind, flags, before, rest) = (CONTINUATION, 0, &[], others);
    }
}
