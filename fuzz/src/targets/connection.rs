//! What a client may send on one connection: frames of HTTP/2 with requests of gRPC, damaged ones, and
//! bytes that are neither.

use std::time::Duration;

use crate::{METHODS, message::message, paused};
use arbitrary::{Result, Unstructured};
use bytes::{BufMut, BytesMut};
use prost_reflect::{MethodDescriptor, prost::Message};
use quorate_server::fuzzing::Subject;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, duplex, split},
    time::timeout,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const MAX_PIECES: usize = 48;

/// How much of what is sent may wait in between.
const PIPE_BYTES: usize = 64 * 1024;

/// How long the server may take to end once its client has gone.
const PATIENCE: Duration = Duration::from_secs(3600);

const HEADERS: u8 = 1;
const DATA: u8 = 0;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Runs one input.
pub(crate) fn feed(input: &[u8]) {
    let mut sent = BytesMut::new();
    let mut u = Unstructured::new(input);
    // The input has ended.
    let _ = pieces(&mut u, &mut sent);
    sent.extend_from_slice(u.take_rest());
    paused(async {
        let subject = Subject::start();
        let (client, server) = duplex(PIPE_BYTES);
        subject.serve(server).await;
        let (mut answers, mut requests) = split(client);
        let talk = async {
            let writing = async {
                // It may have hung up.
                let _ = requests.write_all(&sent).await;
                let _ = requests.shutdown().await;
            };
            let reading = async {
                let mut space = [0; 4096];
                while answers.read(&mut space).await.is_ok_and(|read| read > 0) {}
            };
            tokio::join!(writing, reading)
        };
        timeout(PATIENCE, talk)
            .await
            .expect("a server that ends its connection");
        subject.stop().await;
    });
}

fn pieces(u: &mut Unstructured<'_>, sent: &mut BytesMut) -> Result<()> {
    if u.ratio(1, 16)? {
        return Ok(());
    }
    sent.put_slice(PREFACE);
    frame(sent, 4, 0, 0, &[]);
    let mut stream = 1;
    for _ in 0..MAX_PIECES {
        if u.is_empty() {
            break;
        }
        match u.int_in_range(0..=7)? {
            0..=3 => {
                let method = u.choose(&METHODS)?;
                headers(u, sent, method, stream)?;
                data(u, sent, method, stream)?;
                stream += 2;
            }
            4 => {
                let method = u.choose(&METHODS)?;
                let older = u.int_in_range(0..=stream)?;
                data(u, sent, method, older)?;
            }
            5 => {
                // Frames of all kinds, also the cancellation of a stream.
                let length = u.int_in_range(0..=24)?;
                let (kind, flags) = (u.int_in_range(0..=10)?, u.arbitrary()?);
                let number = u.int_in_range(0..=stream)?;
                let payload = u.bytes(length.min(u.len()))?;
                frame(sent, kind, flags, number, payload);
            }
            6 => frame(
                sent,
                3,
                0,
                u.int_in_range(0..=stream)?,
                &8_u32.to_be_bytes(),
            ),
            _ => {
                let length = u.int_in_range(0..=32)?;
                sent.put_slice(u.bytes(length.min(u.len()))?);
            }
        }
    }
    Ok(())
}

/// Opens a stream, with headers in plain literals.
fn headers(
    u: &mut Unstructured<'_>,
    sent: &mut BytesMut,
    method: &MethodDescriptor,
    stream: u32,
) -> Result<()> {
    const AUTHORITIES: [&str; 5] = ["localhost", "", "/tmp/socket", "http://a,b", "a,b:2379"];
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    let mut fields = vec![
        (":method", "POST".to_owned()),
        (":scheme", "http".to_owned()),
        (":path", path),
        (":authority", (*u.choose(&AUTHORITIES)?).to_owned()),
        ("content-type", "application/grpc".to_owned()),
        ("te", "trailers".to_owned()),
    ];
    if u.ratio(1, 8)? {
        fields.push(("grpc-timeout", format!("{}S", u.arbitrary::<u32>()?)));
    }
    if u.ratio(1, 8)? {
        fields.push(("grpc-encoding", "gzip".to_owned()));
    }
    if u.ratio(1, 8)? {
        let gone = u.choose_index(fields.len())?;
        fields.remove(gone);
    }
    let mut block = BytesMut::new();
    for (name, value) in fields {
        block.put_u8(0);
        for text in [name, &value] {
            block.put_u8(text.len().min(126) as u8);
            block.put_slice(&text.as_bytes()[..text.len().min(126)]);
        }
    }
    let end = if u.ratio(1, 16)? { END_STREAM } else { 0 };
    frame(sent, HEADERS, END_HEADERS | end, stream, &block);
    Ok(())
}

/// Sends a message, which may be damaged, or say that it is larger than it is.
fn data(
    u: &mut Unstructured<'_>,
    sent: &mut BytesMut,
    method: &MethodDescriptor,
    stream: u32,
) -> Result<()> {
    let mut message = message(u, &method.input())?.encode_to_vec();
    if u.ratio(1, 4)? {
        let at = u.choose_index(message.len() + 1)?;
        let byte = u.arbitrary()?;
        match message.get_mut(at) {
            Some(place) => *place = byte,
            None => message.push(byte),
        }
    }
    let mut payload = BytesMut::new();
    payload.put_u8(if u.ratio(1, 32)? { u.arbitrary()? } else { 0 });
    let length = message.len() as u32;
    payload.put_u32(if u.ratio(1, 16)? {
        u.arbitrary()?
    } else {
        length
    });
    payload.put_slice(&message);
    let end = if u.ratio(1, 2)? { END_STREAM } else { 0 };
    frame(sent, DATA, end, stream, &payload);
    Ok(())
}

fn frame(sent: &mut BytesMut, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    sent.put_uint(payload.len() as u64, 3);
    sent.put_u8(kind);
    sent.put_u8(flags);
    sent.put_u32(stream);
    sent.put_slice(payload);
}
