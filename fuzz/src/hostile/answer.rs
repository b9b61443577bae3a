//! The messages of one answer.

use std::{io, time::Duration};

use axum::body::Body;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use prost_reflect::{DynamicMessage, MessageDescriptor, prost::Message};
use tokio::{sync::mpsc, time::sleep};
use tokio_stream::wrappers::ReceiverStream;

use super::lies::{Lies, Refusal, Telling};
use crate::{
    call::FRAME_HEADER_BYTES,
    message::{alter, message},
};

/// How many frames may wait to be sent.
const WAITING: usize = 4;

type Frames = mpsc::Sender<io::Result<Frame<Bytes>>>;

/// What is told of a genuine answer.
pub(super) fn relay(
    lies: Lies,
    descriptor: MessageDescriptor,
    genuine: impl http_body::Body<Data = Bytes, Error: Send> + Send + Unpin + 'static,
) -> Body {
    let (frames, told) = mpsc::channel(WAITING);
    let relay = Relay {
        lies,
        descriptor,
        frames,
    };
    tokio::spawn(async move {
        let gone = relay.frames.clone();
        tokio::select! {
            // Who listened is gone, or everything is told.
            () = gone.closed() => {}
            _ = relay.run(genuine) => {}
        }
    });
    Body::new(StreamBody::new(ReceiverStream::new(told)))
}

struct Relay {
    lies: Lies,
    descriptor: MessageDescriptor,
    frames: Frames,
}

impl Relay {
    /// Relays until the end; none if it came early.
    async fn run<B>(self, mut genuine: B) -> Option<()>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        let mut data = BytesMut::new();
        while let Some(Ok(frame)) = genuine.frame().await {
            match frame.into_data() {
                Ok(piece) => data.extend_from_slice(&piece),
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    self.send(Frame::trailers(trailers)).await?;
                    continue;
                }
            }
            while let Some(message) = next(&mut data) {
                self.tell(message).await?;
            }
        }
        Some(())
    }

    /// Tells something about a message; none if that was the last.
    async fn tell(&self, genuine: Bytes) -> Option<()> {
        match self.lies.telling() {
            Telling::Honest => self.message(genuine).await,
            Telling::Altered(fields) => {
                let descriptor = self.descriptor.clone();
                let mut message = DynamicMessage::decode(descriptor, genuine).ok()?;
                for _ in 0..fields {
                    self.lies.take(|u| alter(u, &mut message));
                }
                self.message(message.encode_to_vec().into()).await
            }
            Telling::Invented => self.invent().await,
            Telling::Preceded => {
                self.invent().await?;
                self.message(genuine).await
            }
            Telling::Twice => {
                self.message(genuine.clone()).await?;
                self.message(genuine).await
            }
            Telling::Never => Some(()),
            Telling::Late(seconds) => {
                sleep(Duration::from_secs(seconds)).await;
                self.message(genuine).await
            }
            Telling::Damaged => {
                let mut frame = framed(&genuine);
                self.lies.take(|u| {
                    for _ in 0..u.int_in_range(1..=3)? {
                        // Its length is a claim of many bytes at worst.
                        let at = u.choose_index(frame.len())?;
                        frame[at] = u.arbitrary()?;
                    }
                    Ok(())
                });
                self.send(Frame::data(frame.freeze())).await
            }
            Telling::Last(refusal) => {
                let refusal = refusal.unwrap_or_else(Refusal::none);
                self.send(Frame::trailers(refusal.trailers())).await?;
                None
            }
            Telling::Broken => {
                let broken = Err(io::ErrorKind::ConnectionReset.into());
                self.frames.send(broken).await.ok()?;
                None
            }
        }
    }

    async fn invent(&self) -> Option<()> {
        let invented = self.lies.take(|u| message(u, &self.descriptor));
        let bytes = invented.map_or_else(Vec::new, |message| message.encode_to_vec());
        self.message(bytes.into()).await
    }

    async fn message(&self, message: Bytes) -> Option<()> {
        self.send(Frame::data(framed(&message).freeze())).await
    }

    async fn send(&self, frame: Frame<Bytes>) -> Option<()> {
        self.frames.send(Ok(frame)).await.ok()
    }
}

/// The next whole message of a body.
fn next(data: &mut BytesMut) -> Option<Bytes> {
    let header = data.get(1..FRAME_HEADER_BYTES)?;
    let length = u32::from_be_bytes(header.try_into().ok()?) as usize;
    if data.len() < FRAME_HEADER_BYTES + length {
        return None;
    }
    data.advance(FRAME_HEADER_BYTES);
    Some(data.split_to(length).freeze())
}

fn framed(message: &[u8]) -> BytesMut {
    let mut frame = BytesMut::with_capacity(FRAME_HEADER_BYTES + message.len());
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put_slice(message);
    frame
}
