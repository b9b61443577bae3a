//! Requests whose `:authority` is no authority, which HTTP/2 in Rust refuses.
//!
//! Clients of gRPC put there what they were told to connect to: the path of a Unix socket, a URL, or
//! a list of endpoints. etcd, as all of Go, does not look at it. So these bytes are replaced on their
//! way to who reads them, by a name that nobody looks at either.
//!
//! - `frames`: where the headers are among all that a client sends
//! - `fields`: where the authority is among the headers
//! - `huffman`: the code that it may be written in

use std::{
    io, mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, ReadBuf};

use self::{
    fields::Fields,
    frames::{Step, step},
};

mod fields;
mod frames;
mod huffman;
#[cfg(test)]
mod tests;

/// What a client of HTTP/2 says first. Others are left alone.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Repairs what a client sends, on the way to who reads it.
///
/// Almost all bytes are read where they are to be in the end. Only the beginning of a frame and the
/// headers of one request are held back, until they are complete; there are few of these bytes.
#[derive(Debug, Default)]
pub(crate) struct Repair {
    stage: Stage,
    fields: Fields,
    /// A frame that has not come to its end, if it has to be looked at as a whole.
    held: Vec<u8>,
    /// What the reader gets before anything else.
    ready: Vec<u8>,
    /// How much of that it has got.
    given: usize,
}

#[derive(Debug)]
enum Stage {
    /// So much of the preface was there.
    Preface(usize),
    /// So many bytes belong to a frame that is passed as it is; then another frame begins.
    Frames(usize),
    /// The rest is passed as it is.
    Raw,
}

impl Default for Stage {
    fn default() -> Self {
        Self::Preface(0)
    }
}

impl Repair {
    /// Reads what the client has sent, repaired.
    pub(crate) fn poll_read(
        &mut self,
        client: &mut (impl AsyncRead + Unpin),
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while buffer.remaining() > 0 {
            if self.give(buffer) {
                break;
            }
            let start = buffer.filled().len();
            ready!(Pin::new(&mut *client).poll_read(cx, buffer))?;
            if buffer.filled().len() == start && !self.end() {
                break;
            }
            self.sift(buffer, start);
            if buffer.filled().len() > start {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Whether the client has said what it speaks: HTTP/2, or something else.
    pub(crate) const fn has_greeted(&self) -> bool {
        !matches!(self.stage, Stage::Preface(_))
    }

    /// Hands on what is ready, and tells whether there was something.
    fn give(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let left = &self.ready[self.given..];
        let given = &left[..left.len().min(buffer.remaining())];
        buffer.put_slice(given);
        self.given += given.len();
        let has_given = !given.is_empty();
        if self.given == self.ready.len() {
            // Most connections need this once, so none keeps the memory.
            (self.ready, self.given) = (Vec::new(), 0);
        }
        has_given
    }

    /// The client sends no more. Tells whether that leaves something to be read.
    fn end(&mut self) -> bool {
        self.stage = Stage::Raw;
        self.ready = mem::take(&mut self.held);
        !self.ready.is_empty()
    }

    /// Takes out of the buffer, from `start` on, what cannot be passed as it is.
    fn sift(&mut self, buffer: &mut ReadBuf<'_>, start: usize) {
        let fresh = &buffer.filled()[start..];
        if !self.held.is_empty() {
            let mut held = mem::take(&mut self.held);
            held.extend_from_slice(fresh);
            self.hold(&held);
            buffer.set_filled(start);
            return;
        }
        let mut passed = 0;
        while passed < fresh.len() {
            match self.step(&fresh[passed..]) {
                Step::Pass(bytes) => passed += bytes,
                step => {
                    let rest = self.take(step, &fresh[passed..]);
                    self.hold(rest);
                    break;
                }
            }
        }
        buffer.set_filled(start + passed);
    }

    /// Makes ready what the bytes are to be passed as, and holds back what has no end yet.
    fn hold(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let step = self.step(bytes);
            bytes = self.take(step, bytes);
        }
    }

    /// Does what was found to be done with the first of the bytes, and returns the others.
    fn take<'a>(&mut self, step: Step, bytes: &'a [u8]) -> &'a [u8] {
        match step {
            Step::Pass(passed) => {
                self.ready.extend_from_slice(&bytes[..passed]);
                &bytes[passed..]
            }
            Step::Replace(replaced, by) => {
                self.ready.extend(by);
                &bytes[replaced..]
            }
            Step::Resign => {
                self.stage = Stage::Raw;
                bytes
            }
            Step::Wait => {
                self.held = bytes.to_vec();
                &[]
            }
        }
    }

    /// What is to be done with the first of the bytes. Never passes more than there are.
    fn step(&mut self, bytes: &[u8]) -> Step {
        match &mut self.stage {
            Stage::Preface(seen) => {
                let expected = &PREFACE[*seen..];
                let length = expected.len().min(bytes.len());
                if bytes[..length] != expected[..length] {
                    return Step::Resign;
                }
                *seen += length;
                if *seen == PREFACE.len() {
                    self.stage = Stage::Frames(0);
                }
                Step::Pass(length)
            }
            Stage::Frames(0) => match step(bytes, &mut self.fields) {
                Step::Pass(frame) => {
                    let passed = frame.min(bytes.len());
                    self.stage = Stage::Frames(frame - passed);
                    Step::Pass(passed)
                }
                step => step,
            },
            Stage::Frames(left) => {
                let passed = (*left).min(bytes.len());
                *left -= passed;
                Step::Pass(passed)
            }
            Stage::Raw => Step::Pass(bytes.len()),
        }
    }
}
