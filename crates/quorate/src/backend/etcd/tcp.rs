//! Connects to a host and a port.

use std::{io, net::SocketAddr, time::Duration};

use futures_util::{FutureExt as _, StreamExt as _, future, stream::FuturesUnordered};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpStream, lookup_host},
    time::sleep,
};

use super::carrier::Probing;

/// How long one address of a host is tried before the next is tried beside it.
const HEAD_START: Duration = Duration::from_millis(250);

/// Connects to whichever address of the host answers first.
pub(super) async fn connect(host: &str, port: u16, probing: Probing) -> io::Result<TcpStream> {
    // In a URL an address of version 6 stands in brackets.
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let mut addresses = lookup_host((host, port)).await?;
    let mut attempts = FuturesUnordered::new();
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    loop {
        let next = addresses.next();
        let wait = match next {
            Some(_) => sleep(HEAD_START).boxed(),
            None => future::pending().boxed(),
        };
        attempts.extend(next.map(TcpStream::connect::<SocketAddr>));
        tokio::select! {
            attempt = attempts.next() => match attempt {
                Some(Ok(stream)) => {
                    equip(&stream, probing)?;
                    return Ok(stream);
                }
                Some(Err(error)) => failure = error,
                None => return Err(failure),
            },
            () = wait => {}
        }
    }
}

/// Sends small messages at once, and has the system find dead peers of connections that are idle.
fn equip(stream: &TcpStream, probing: Probing) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(probing.interval)
        .with_interval(probing.patience);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const PROBING: Probing = Probing {
        interval: Duration::from_secs(10),
        patience: Duration::from_secs(3),
    };

    #[tokio::test]
    async fn a_host_is_reached_at_the_address_that_listens() {
        // One address of localhost at the most.
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        for host in ["localhost", "127.0.0.1"] {
            let stream = connect(host, address.port(), PROBING).await;
            assert_eq!(
                stream.and_then(|stream| stream.peer_addr()).ok(),
                Some(address)
            );
        }
    }

    #[tokio::test]
    async fn the_last_reason_is_told_if_no_address_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        drop(listener);
        for host in ["localhost", "[::1]"] {
            let refused = connect(host, port, PROBING).await.map(drop);
            let kind = refused.map_err(|error| error.kind());
            assert!(
                // There are machines without version 6.
                matches!(
                    kind,
                    Err(io::ErrorKind::ConnectionRefused | io::ErrorKind::AddrNotAvailable)
                ),
                "{host}: {kind:?}"
            );
        }
    }
}
