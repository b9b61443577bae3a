//! Clients that stop reading.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use hyper_util::rt::TokioIo;
use quorate_wire::etcdserverpb::{
    WatchCreateRequest, WatchRequest, WatchResponse, watch_client::WatchClient,
    watch_request::RequestUnion,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::{mpsc, watch},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Streaming,
    transport::{Channel, Endpoint},
};

use crate::{Result, connect};

/// The clients, which go when this is dropped.
pub(crate) struct Stalled {
    _streams: Vec<(mpsc::Sender<WatchRequest>, Streaming<WatchResponse>)>,
    _is_stalled: watch::Sender<bool>,
}

/// Watches everything by two clients. One reads its socket, but not its stream; the other reads nothing.
pub(crate) async fn start(endpoint: &str) -> Result<Stalled> {
    let (is_stalled, stalls) = watch::channel(false);
    let streams = vec![
        open(connect(endpoint).await?).await?,
        open(connect_deaf(endpoint, stalls).await?).await?,
    ];
    is_stalled.send(true)?;
    Ok(Stalled {
        _streams: streams,
        _is_stalled: is_stalled,
    })
}

async fn open(channel: Channel) -> Result<(mpsc::Sender<WatchRequest>, Streaming<WatchResponse>)> {
    let (requests, receiver) = mpsc::channel(1);
    let request = WatchCreateRequest {
        key: b"\0"[..].into(),
        range_end: b"\0"[..].into(),
        prev_kv: true,
        ..WatchCreateRequest::default()
    };
    let request_union = Some(RequestUnion::CreateRequest(request));
    requests.send(WatchRequest { request_union }).await?;
    let mut answers = WatchClient::new(channel)
        .watch(ReceiverStream::new(receiver))
        .await?
        .into_inner();
    answers.message().await?.ok_or("a stream has ended")?;
    Ok((requests, answers))
}

async fn connect_deaf(endpoint: &str, stalls: watch::Receiver<bool>) -> Result<Channel> {
    let address = endpoint.trim_start_matches("http://").to_owned();
    let connector = tower::service_fn(move |_| {
        let (address, stalls) = (address.clone(), stalls.clone());
        async move {
            let socket = TcpStream::connect(address).await?;
            io::Result::Ok(TokioIo::new(Deaf { socket, stalls }))
        }
    });
    let endpoint = Endpoint::from_shared(endpoint.to_owned())?;
    Ok(endpoint.connect_with_connector(connector).await?)
}

/// A socket that is not read any more once it stalls.
struct Deaf {
    socket: TcpStream,
    stalls: watch::Receiver<bool>,
}

impl AsyncRead for Deaf {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if *self.stalls.borrow() {
            return Poll::Pending;
        }
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Deaf {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
