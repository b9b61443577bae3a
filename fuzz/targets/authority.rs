//! Bytes through the repair of authorities: how they are cut into pieces does not matter, and what is
//! repaired needs no repair.
#![no_main]

use fuzz::run;
use libfuzzer_sys::fuzz_target;
use quorate_server::fuzzing::repaired;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How many bytes are read at once, at most.
const MAX_PIECE: usize = 64;

fuzz_target!(|input: (bool, u8, &[u8])| {
    let (has_preface, length, rest) = input;
    let mut sent = Vec::new();
    if has_preface {
        sent.extend_from_slice(PREFACE);
    }
    sent.extend_from_slice(rest);
    run(async {
        let once = in_pieces(&sent, MAX_PIECE).await;
        let otherwise = in_pieces(&sent, usize::from(length) % MAX_PIECE + 1).await;
        assert_eq!(once, otherwise);
        assert_eq!(in_pieces(&once, MAX_PIECE).await, once);
    });
});

async fn in_pieces(sent: &[u8], length: usize) -> Vec<u8> {
    let pieces: Vec<_> = sent.chunks(length).collect();
    repaired(&pieces).await
}
