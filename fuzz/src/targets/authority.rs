//! Bytes through the repair of authorities: how they are cut into pieces does not matter, and what is
//! repaired needs no repair.

use crate::paused;
use quorate_server::fuzzing::repaired;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How many bytes are read at once, at most.
const MAX_PIECE: usize = 64;

/// Runs one input: whether it begins as HTTP/2 does, how long the pieces are, and the bytes.
pub(crate) fn feed(input: &[u8]) {
    let [has_preface, length, rest @ ..] = input else {
        return;
    };
    let mut sent = Vec::new();
    if has_preface % 2 == 1 {
        sent.extend_from_slice(PREFACE);
    }
    sent.extend_from_slice(rest);
    paused(async {
        let once = in_pieces(&sent, MAX_PIECE).await;
        let otherwise = in_pieces(&sent, usize::from(*length) % MAX_PIECE + 1).await;
        assert_eq!(once, otherwise);
        assert_eq!(in_pieces(&once, MAX_PIECE).await, once);
    });
}

async fn in_pieces(sent: &[u8], length: usize) -> Vec<u8> {
    let pieces: Vec<_> = sent.chunks(length).collect();
    repaired(&pieces).await
}
