//! Connects to a host and a port.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _, future, stream::FuturesUnordered};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, lookup_host},
    time::sleep,
};

use super::carrier::Probing;

/// How long one address of a host is tried before the next is tried beside it.
const HEAD_START: Duration = Duration::from_millis(250);

/// Says that a connection is to be cut off when it closes. Otherwise the system goes on sending what was
/// written to it, for minutes: a write that nobody waits for any more would arrive behind later ones.
#[derive(Clone, Debug, Default)]
pub(super) struct CutOff(Arc<AtomicBool>);

impl CutOff {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A connection that ends as [`CutOff`] says.
pub(super) struct Stream {
    inner: TcpStream,
    cut_off: CutOff,
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.cut_off.is_set() {
            // If it fails, what was written may arrive, as it may anyway.
            let _ = SockRef::from(&self.inner).set_linger(Some(Duration::ZERO));
        }
    }
}

/// Connects to whichever address of the host answers first.
pub(super) async fn connect(
    host: &str,
    port: u16,
    probing: Probing,
    cut_off: CutOff,
) -> io::Result<Stream> {
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
                Some(Ok(inner)) => {
                    equip(&inner, probing)?;
                    return Ok(Stream { inner, cut_off });
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
    // In whole seconds, and Linux takes no more than these.
    let fitting = |time: Duration| time.clamp(Duration::from_secs(1), Duration::from_secs(32_767));
    let keepalive = TcpKeepalive::new()
        .with_time(fitting(probing.interval))
        .with_interval(fitting(probing.patience));
    if let Err(error) = SockRef::from(stream).set_tcp_keepalive(&keepalive) {
        tracing::debug!(%error, "the system does not look for dead peers");
    }
    Ok(())
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, into)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

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
            let stream = connect(host, address.port(), PROBING, CutOff::default()).await;
            let reached = stream.and_then(|stream| stream.inner.peer_addr());
            assert_eq!(reached.ok(), Some(address));
        }
    }

    #[tokio::test]
    async fn the_last_reason_is_told_if_no_address_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        drop(listener);
        for host in ["localhost", "[::1]"] {
            let refused = connect(host, port, PROBING, CutOff::default()).await;
            let refused = refused.map(drop);
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

    #[tokio::test]
    async fn a_connection_takes_times_that_the_system_does_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        for time in [Duration::from_millis(1), Duration::MAX] {
            let probing = Probing {
                interval: time,
                patience: time,
            };
            let stream = connect("127.0.0.1", port, probing, CutOff::default()).await;
            let stream = stream.expect("it listens");
            assert!(
                SockRef::from(&stream.inner).keepalive().expect("known"),
                "{time:?}"
            );
        }
    }

    #[tokio::test]
    async fn what_a_connection_that_is_cut_off_has_written_is_forgotten() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        for cuts in [false, true] {
            let cut_off = CutOff::default();
            let stream = connect("127.0.0.1", port, PROBING, cut_off.clone()).await;
            let mut stream = stream.expect("it listens");
            let (mut other, _) = listener.accept().await.expect("it is there");
            // More than the other end takes without reading.
            let wrote = tokio::time::timeout(Duration::from_millis(200), async {
                loop {
                    stream.write_all(&[7; 1 << 20]).await.expect("it is open");
                }
            });
            assert!(wrote.await.is_err());
            if cuts {
                cut_off.set();
            }
            drop(stream);
            let read = other.read_to_end(&mut Vec::new()).await;
            let kind = read.map_err(|error| error.kind()).err();
            assert_eq!(kind, cuts.then_some(io::ErrorKind::ConnectionReset));
        }
    }
}
