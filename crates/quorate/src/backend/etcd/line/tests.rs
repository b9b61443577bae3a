//! A connection whose other end is a server of HTTP/2 in the test, or nobody.

use std::{convert::Infallible, time::Duration};

use futures_util::{StreamExt as _, stream};
use h2::server;
use http::{HeaderMap, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tokio::{
    io::{DuplexStream, duplex},
    sync::mpsc,
    time::{sleep, timeout},
};

use super::*;

const PROBING: Probing = Probing {
    interval: Duration::from_secs(10),
    patience: Duration::from_secs(3),
};

/// A connection, and its other end, at which nobody says anything yet.
async fn connected() -> (Line, DuplexStream) {
    let (near, far) = duplex(1 << 16);
    let origin = (Scheme::HTTP, Authority::from_static("member:2379"));
    let line = Line::new(near, origin, PROBING, CutOff::default()).await;
    (line.expect("nobody has to agree"), far)
}

/// A request with these pieces as its body.
fn request(pieces: Vec<Bytes>) -> Request<Body> {
    let pieces = stream::iter(pieces).map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
    let body = Body::new(StreamBody::new(pieces));
    Request::post("/service/Method").body(body).expect("valid")
}

/// Serves each call by `answer`, until the connection ends.
async fn serve<F>(far: DuplexStream, answer: impl Fn(Call) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut connection = server::handshake(far).await.expect("a client");
    let runtime = crate::TokioRuntime::new();
    while let Some(Ok((request, respond))) = connection.accept().await {
        crate::Runtime::spawn(&runtime, Box::pin(answer(Call { request, respond })));
    }
}

/// A call, as the server has it.
struct Call {
    request: Request<RecvStream>,
    respond: server::SendResponse<Bytes>,
}

impl Call {
    /// The request's body to its end; `None` if it is reset.
    async fn read(&mut self) -> Option<Vec<u8>> {
        let mut read = Vec::new();
        while let Some(data) = self.request.body_mut().data().await {
            let data = data.ok()?;
            read.extend_from_slice(&data);
            let flow = self.request.body_mut().flow_control();
            flow.release_capacity(data.len()).expect("it was received");
        }
        Some(read)
    }

    /// Sends back what it reads, with trailers behind it.
    async fn echo(mut self) {
        let read = self.read().await.expect("it is whole");
        let mut stream = self
            .respond
            .send_response(Response::new(()), false)
            .expect("open");
        stream.send_data(read.into(), false).expect("open");
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().expect("valid"));
        trailers.insert(
            "grpc-status-details-bin",
            "no base64!".parse().expect("valid"),
        );
        stream.send_trailers(trailers).expect("open");
    }
}

/// Runs a server beside a test.
async fn beside<T>(server: impl Future<Output = ()>, test: impl Future<Output = T>) -> T {
    tokio::select! {
        biased;
        outcome = test => outcome,
        () = server => panic!("the server has ended"),
    }
}

#[tokio::test]
async fn a_call_brings_its_body_there_and_the_answer_back() {
    let (line, far) = connected().await;
    let test = async {
        // More than fits into a frame, into the first window, and in one piece.
        let pieces = vec![Bytes::from(vec![1; 300_000]), Bytes::from(vec![2; 7])];
        let answer = line
            .clone()
            .send(request(pieces.clone()))
            .await
            .expect("answered");
        assert_eq!(answer.status(), StatusCode::OK);
        let body = answer.into_body().collect().await.expect("whole");
        let trailers = body.trailers().cloned().expect("there are some");
        assert_eq!(trailers["grpc-status"], "0");
        // They would be none that tonic can read.
        assert!(!trailers.contains_key("grpc-status-details-bin"));
        assert_eq!(body.to_bytes(), pieces.concat());
        assert!(!line.0.shared.is_in_use());
    };
    beside(serve(far, Call::echo), test).await;
}

#[tokio::test]
async fn a_stream_goes_both_ways_at_once() {
    let (line, far) = connected().await;
    let server = serve(far, |mut call| async move {
        let mut stream = call
            .respond
            .send_response(Response::new(()), false)
            .expect("open");
        while let Some(Ok(data)) = call.request.body_mut().data().await {
            stream.send_data(data, false).expect("open");
        }
        stream.send_trailers(HeaderMap::new()).expect("open");
    });
    let test = async {
        let (sender, mut pieces) = mpsc::channel::<Bytes>(1);
        let pieces = stream::poll_fn(move |context| pieces.poll_recv(context));
        let body = StreamBody::new(pieces.map(|piece| Ok::<_, Infallible>(Frame::data(piece))));
        let request = Request::post("/service/Method").body(Body::new(body));
        let answer = line.send(request.expect("valid")).await.expect("answered");
        let mut answer = answer.into_body();
        for piece in ["one", "two"] {
            sender.send(piece.into()).await.expect("it is read");
            let frame = answer.frame().await.expect("more").expect("whole");
            assert_eq!(frame.into_data().ok().as_deref(), Some(piece.as_bytes()));
        }
        drop(sender);
        assert!(
            answer
                .frame()
                .await
                .expect("more")
                .expect("whole")
                .is_trailers()
        );
        assert!(answer.frame().await.is_none());
    };
    beside(server, test).await;
}

#[tokio::test]
async fn a_call_that_is_dropped_is_told_to_the_server() {
    let (line, far) = connected().await;
    let (told, mut heard) = mpsc::channel(1);
    let server = serve(far, move |mut call| {
        let told = told.clone();
        async move {
            let read = call.read().await;
            told.send(read.is_some()).await.expect("it is awaited");
            // It is reset only now: the body was whole.
            let reset = poll_fn(|context| call.respond.poll_reset(context)).await;
            told.send(reset.is_ok()).await.expect("it is awaited");
        }
    });
    let test = async {
        let mut call = line.clone().send(request(vec!["body".into()])).boxed();
        tokio::select! {
            _ = &mut call => panic!("there is no answer"),
            whole = heard.recv() => assert_eq!(whole, Some(true)),
        }
        drop(call);
        assert_eq!(heard.recv().await, Some(true));
        assert!(!line.0.shared.is_in_use());
    };
    beside(server, test).await;
}

#[tokio::test]
async fn what_an_ended_connection_has_not_taken_is_known() {
    let (line, far) = connected().await;
    drop(far);
    while !line.has_ended() {
        tokio::task::yield_now().await;
    }
    let broken = line.send(request(vec!["body".into()])).await.map(drop);
    assert!(broken.expect_err("nobody is there").untaken);
}

#[tokio::test]
async fn what_a_connection_has_taken_may_have_been_done() {
    let (line, far) = connected().await;
    let mut call = line.send(request(vec!["body".into()])).boxed();
    assert!(futures_util::poll!(&mut call).is_pending());
    drop(far);
    let broken = call.await.map(drop).expect_err("nobody is there");
    assert!(!broken.untaken, "{broken:?}");
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_not_answered_ends_the_calls() {
    let (line, _far) = connected().await;
    let longest = PROBING.interval + PROBING.patience + Duration::from_secs(1);
    let call = timeout(longest, line.clone().send(request(vec!["body".into()])));
    let broken = call
        .await
        .expect("it ends")
        .map(drop)
        .expect_err("nobody answers");
    let why = broken.source().map(ToString::to_string);
    assert_eq!(why.as_deref(), Some("a probe was not answered"));
    assert!(line.has_ended());
}

#[tokio::test(start_paused = true)]
async fn a_member_that_answers_probes_may_take_its_time_for_a_call() {
    let (line, far) = connected().await;
    let server = serve(far, |call| async move {
        sleep(PROBING.interval * 20).await;
        call.echo().await;
    });
    let call = line.send(request(vec!["body".into()]));
    assert!(beside(server, call).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_not_probed() {
    let (line, _far) = connected().await;
    // Nobody would answer.
    sleep(PROBING.interval * 20).await;
    assert!(!line.has_ended());
}
