//! A client of HTTP/1.1, no larger than the tests need.

use std::{fmt::Write, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// Where to ask: `http://127.0.0.1:2379`.
#[derive(Clone)]
pub struct Http {
    authority: String,
}

/// An answer that has ended.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

/// An answer that comes in pieces, on a connection of its own.
pub struct Stream {
    socket: BufReader<TcpStream>,
    pub status: u16,
    pub headers: Vec<(String, String)>,
    rest: Vec<u8>,
}

impl Http {
    pub fn new(url: &str) -> Self {
        let authority = url.strip_prefix("http://").unwrap().to_owned();
        Self { authority }
    }

    pub async fn post(&self, path: &str, body: &str) -> Answer {
        self.ask("POST", path, &[], body).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], "").await
    }

    /// Posts what has to succeed.
    pub async fn json(&self, path: &str, body: &str) -> Value {
        let answer = self.post(path, body).await;
        assert_eq!(answer.status, 200, "{path} {body}: {}", answer.body);
        answer.json()
    }

    pub async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let length = body.len().to_string();
        let mut headers = headers.to_vec();
        headers.push(("Content-Length", &length));
        headers.push(("Connection", "close"));
        let mut socket = self.send(method, path, &headers, body).await;
        let (status, headers) = head(&mut socket).await;
        let mut stream = Stream {
            socket,
            status,
            headers,
            rest: Vec::new(),
        };
        let mut body = Vec::new();
        if method == "HEAD" {
        } else if stream.header("transfer-encoding").is_some() {
            while let Some(piece) = stream.piece().await {
                body.extend(piece);
            }
        } else {
            let all = stream.socket.read_to_end(&mut body);
            timeout(PATIENCE, all).await.expect("no end").unwrap();
        }
        Answer {
            status,
            headers: stream.headers,
            body: String::from_utf8(body).unwrap(),
        }
    }

    /// Posts a body that goes on: more may be sent while the answer comes.
    pub async fn open(&self, path: &str, body: &str) -> Sending {
        let headers = [("Transfer-Encoding", "chunked")];
        let mut sending = self.start(path, &headers, "").await;
        sending.send(body).await;
        sending
    }

    /// Posts something whose answer goes on.
    pub async fn start(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Sending {
        let socket = self.send("POST", path, headers, body).await;
        Sending { socket }
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> BufReader<TcpStream> {
        let socket = TcpStream::connect(&self.authority).await.unwrap();
        let mut socket = BufReader::new(socket);
        let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.authority);
        for (name, value) in headers {
            write!(text, "{name}: {value}\r\n").unwrap();
        }
        text.push_str("\r\n");
        text.push_str(body);
        // A server may refuse before it has read everything.
        let _ = socket.write_all(text.as_bytes()).await;
        socket
    }
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }
}

/// A request whose body has not ended.
pub struct Sending {
    socket: BufReader<TcpStream>,
}

impl Sending {
    pub async fn send(&mut self, body: &str) {
        let chunk = format!("{:x}\r\n{body}\r\n", body.len());
        self.socket.write_all(chunk.as_bytes()).await.unwrap();
    }

    /// Waits until the answer begins. The body still goes on.
    pub async fn answer(mut self) -> Stream {
        let (status, headers) = head(&mut self.socket).await;
        Stream {
            socket: self.socket,
            status,
            headers,
            rest: Vec::new(),
        }
    }
}

impl Stream {
    /// Sends more of the body.
    pub async fn send(&mut self, body: &str) {
        let chunk = format!("{:x}\r\n{body}\r\n", body.len());
        self.socket.write_all(chunk.as_bytes()).await.unwrap();
    }

    /// The next line, as JSON; none after the last.
    pub async fn line(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|&byte| byte == b'\n') {
                let line: Vec<_> = self.rest.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            match self.piece().await {
                Some(piece) => self.rest.extend(piece),
                None if self.rest.is_empty() => return None,
                None => self.rest.push(b'\n'), // etcd 3.4 does not end its last line
            }
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// The next chunk; none after the last.
    async fn piece(&mut self) -> Option<Vec<u8>> {
        let next = async {
            let mut length = String::new();
            self.socket.read_line(&mut length).await.unwrap();
            let length = usize::from_str_radix(length.trim(), 16).ok()?;
            let mut piece = vec![0; length];
            self.socket.read_exact(&mut piece).await.unwrap();
            if length == 0 {
                return None;
            }
            let mut end = String::new();
            self.socket.read_line(&mut end).await.unwrap();
            Some(piece)
        };
        timeout(PATIENCE, next).await.expect("the stream is silent")
    }
}

async fn head(socket: &mut BufReader<TcpStream>) -> (u16, Vec<(String, String)>) {
    let read = async {
        let mut line = String::new();
        socket.read_line(&mut line).await.unwrap();
        let status = line.split(' ').nth(1).expect("no status").parse().unwrap();
        let mut headers = Vec::new();
        loop {
            line.clear();
            socket.read_line(&mut line).await.unwrap();
            match line.trim().split_once(": ") {
                Some((name, value)) => headers.push((name.to_lowercase(), value.to_owned())),
                None => return (status, headers),
            }
        }
    };
    timeout(PATIENCE, read).await.expect("no answer begins")
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let found = headers.iter().find(|(it, _)| it == name);
    found.map(|(_, value)| value.as_str())
}
