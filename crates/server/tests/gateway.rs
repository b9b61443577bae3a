//! JSON over HTTP is answered as etcd's gateway answers it.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // here a panic is a failed test

mod support;

use std::{process::Stdio, time::Duration};

use quorate_server::Server;
use serde_json::{Value, json};
use support::{
    etcd::{Cluster, server_35},
    http::{Answer, Http},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
    time::timeout,
};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// How much of a refusal etcd's own version, or its library of JSON, decides.
#[derive(Clone, Copy, PartialEq)]
enum Refusal {
    /// The text is etcd's.
    Told,
    /// The text is of the library that reads JSON.
    Json,
    /// 3.4 does otherwise.
    Since35,
}
use Refusal::{Json, Since35, Told};

/// A program that every server goes through: a request and what to compare of a refusal. The ids of
/// leases are chosen, so that answers are equal.
const REQUESTS: &[(Refusal, &str, &str, &str)] = &[
    (
        Told,
        "POST",
        "/v3/kv/put",
        r#"{"key":"Zm9v","value":"YmFy"}"#,
    ),
    (
        Told,
        "POST",
        "/v3/kv/put",
        r#"{"key":"Zm9v","value":"YmF6","prev_kv":true}"#,
    ),
    (
        Told,
        "POST",
        "/v3/kv/put",
        r#"{"key":"Zm9w","value":"/+8="}"#,
    ),
    (Told, "POST", "/v3/kv/put", r#"{"key":"YQ==","lease":77}"#),
    (Told, "POST", "/v3/kv/put", ""),
    // Ranges, and what a request may look like.
    (Told, "POST", "/v3/kv/range", r#"{"key":"Zm9v"}"#),
    (Told, "POST", "/v3beta/kv/range", r#"{"key":"Zm9v"}"#),
    (
        Told,
        "POST",
        "/v3/kv/range",
        r#"{"key":"Zm9v","range_end":"Zm9x","count_only":true}"#,
    ),
    (
        Told,
        "POST",
        "/v3/kv/range",
        r#"{"key":"Zm9v","rangeEnd":"Zm9x","keysOnly":true}"#,
    ),
    (
        Told,
        "POST",
        "/v3/kv/range",
        r#"{"key":"AA==","range_end":"AA==","sort_order":"DESCEND"}"#,
    ),
    (
        Told,
        "POST",
        "/v3/kv/range",
        r#"{"key":"AA==","range_end":"AA==","sort_order":2,"limit":"1"}"#,
    ),
    (
        Told,
        "POST",
        "/v3/kv/range",
        r#"{"key":"AA==","range_end":"AA==","sort_target":"CREATE","sort_order":1,"limit":1}"#,
    ),
    (
        Told,
        "POST",
        "/v3/kv/range",
        r#"{"key":"Zm9v","revision":"2","serializable":true}"#,
    ),
    (
        Told,
        "POST",
        "/v3/kv/range",
        r#"{"key":"Zm9v","revision":99}"#,
    ),
    (
        Told,
        "POST",
        "/v3/kv/range",
        r#"{"key":"Zm9v","unknown":{"a":[1]}}"#,
    ),
    (Told, "POST", "/v3/kv/range", r#"{"key":"Zm9v"} and so on"#),
    (Told, "POST", "/v3/kv/range", r#"{"key":"Zm9v"}{"key":"!"}"#),
    (Told, "POST", "/v3/kv/range", r#"{"key":"Zm\n9v"}"#),
    (Told, "POST", "/v3/kv/range", r#"{"key":null}"#),
    (Told, "POST", "/v3/kv/range", r#"{"Key":"Zm9v"}"#),
    (Told, "POST", "/v3/kv/range?key=Zm9v", "{}"),
    (Told, "POST", "/v3/kv/range", ""),
    (Since35, "POST", "/v3/kv/range", r#"{"key":"Zm8"}"#),
    (Since35, "POST", "/v3/kv/range", r#"{"key":"-_-_"}"#),
    (
        Since35,
        "POST",
        "/v3/kv/range",
        r#"{"key":"Zm9v","limit":1.0}"#,
    ),
    (Json, "POST", "/v3/kv/range", "{"),
    (Json, "POST", "/v3/kv/range", "[]"),
    (Json, "POST", "/v3/kv/range", "5"),
    (Json, "POST", "/v3/kv/range", "zzz"),
    (Json, "POST", "/v3/kv/range", r#"{"key":"!!"}"#),
    (Json, "POST", "/v3/kv/range", r#"{"key":5}"#),
    (
        Json,
        "POST",
        "/v3/kv/range",
        r#"{"key":"Zm9v","limit":"a"}"#,
    ),
    (
        Json,
        "POST",
        "/v3/kv/range",
        r#"{"key":"Zm9v","limit":1.5}"#,
    ),
    (
        Json,
        "POST",
        "/v3/kv/range",
        r#"{"key":"Zm9v","limit":99999999999999999999}"#,
    ),
    (
        Json,
        "POST",
        "/v3/kv/range",
        r#"{"key":"Zm9v","count_only":1}"#,
    ),
    (Since35, "POST", "/v3/kv/range", r#"null"#),
    (Since35, "GET", "/v3/kv/range", ""),
    (Since35, "DELETE", "/v3/kv/range", ""),
    (Since35, "POST", "/v3/kv/nothing", "{}"),
    (Since35, "GET", "/v3/", ""),
    (Told, "OPTIONS", "/v3/kv/range", ""),
    (Told, "HEAD", "/nothing", ""),
    (Told, "POST", "/nothing", ""),
    (Told, "GET", "/", ""),
    // Transactions.
    (
        Told,
        "POST",
        "/v3/kv/txn",
        r#"{"compare":[{"key":"Zm9v","target":"CREATE","result":"GREATER","create_revision":"1"}],"success":[{"request_put":{"key":"Zm9v","value":"eg==","prev_kv":true}},{"requestRange":{"key":"Zm9v"}}]}"#,
    ),
    (
        Told,
        "POST",
        "/v3/kv/txn",
        r#"{"compare":[{"key":"Zm9v","target":"VALUE","value":"eQ=="}],"success":[{"requestRange":{"key":"Zm9v"}}],"failure":[{"requestDeleteRange":{"key":"Zm9w","prev_kv":true}},{"requestTxn":{"success":[{"requestPut":{"key":"bg=="}}]}}]}"#,
    ),
    (
        Told,
        "POST",
        "/v3/kv/txn",
        r#"{"success":[{"requestPut":{"key":"bg=="}},{"requestPut":{"key":"bg=="}}]}"#,
    ),
    (Told, "POST", "/v3/kv/txn", r#"{"success":[{}]}"#),
    (Told, "POST", "/v3/kv/txn", "{}"),
    (Since35, "POST", "/v3/kv/txn", r#"{"success":[null]}"#),
    (Json, "POST", "/v3/kv/txn", r#"{"success":{}}"#),
    (
        Told,
        "POST",
        "/v3/kv/deleterange",
        r#"{"key":"bg==","prev_kv":true}"#,
    ),
    (
        Told,
        "POST",
        "/v3/kv/compaction",
        r#"{"revision":"3","physical":true}"#,
    ),
    (Told, "POST", "/v3/kv/compaction", r#"{"revision":2}"#),
    (
        Told,
        "POST",
        "/v3/kv/range",
        r#"{"key":"Zm9v","revision":2}"#,
    ),
    // Leases, by both sets of paths.
    (
        Told,
        "POST",
        "/v3/lease/grant",
        r#"{"TTL":100,"ID":"12345"}"#,
    ),
    (Told, "POST", "/v3/lease/grant", r#"{"TTL":100,"ID":12345}"#),
    (
        Told,
        "POST",
        "/v3/kv/put",
        r#"{"key":"bA==","lease":"12345"}"#,
    ),
    (Told, "POST", "/v3/lease/timetolive", r#"{"ID":777}"#),
    (Told, "POST", "/v3/lease/leases", ""),
    (Told, "POST", "/v3/kv/lease/leases", "{}"),
    (
        Told,
        "POST",
        "/v3/lease/keepalive",
        r#"{"ID":12345}{"ID":777}
        {"ID":"12345"}"#,
    ),
    (Told, "POST", "/v3/lease/keepalive", ""),
    (Told, "POST", "/v3/kv/lease/revoke", r#"{"ID":12345}"#),
    (Told, "POST", "/v3/lease/revoke", r#"{"ID":12345}"#),
    // Users and roles.
    (
        Told,
        "POST",
        "/v3/auth/user/add",
        r#"{"name":"u","password":"p"}"#,
    ),
    (
        Told,
        "POST",
        "/v3/auth/user/add",
        r#"{"name":"u","password":"p"}"#,
    ),
    (Told, "POST", "/v3/auth/role/add", r#"{"name":"r"}"#),
    (
        Told,
        "POST",
        "/v3/auth/role/grant",
        r#"{"name":"r","perm":{"permType":"READWRITE","key":"YQ==","range_end":"Yg=="}}"#,
    ),
    (Told, "POST", "/v3/auth/role/get", r#"{"role":"r"}"#),
    (Told, "POST", "/v3/auth/role/list", "{}"),
    (
        Told,
        "POST",
        "/v3/auth/user/grant",
        r#"{"user":"u","role":"r"}"#,
    ),
    (Told, "POST", "/v3/auth/user/get", r#"{"name":"u"}"#),
    (Told, "POST", "/v3/auth/user/list", ""),
    (
        Told,
        "POST",
        "/v3/auth/user/revoke",
        r#"{"name":"u","role":"r"}"#,
    ),
    (
        Told,
        "POST",
        "/v3/auth/user/changepw",
        r#"{"name":"u","password":"q"}"#,
    ),
    (
        Told,
        "POST",
        "/v3/auth/role/revoke",
        r#"{"role":"r","key":"YQ==","range_end":"Yg=="}"#,
    ),
    (Told, "POST", "/v3/auth/role/delete", r#"{"role":"r"}"#),
    (Told, "POST", "/v3/auth/user/delete", r#"{"name":"u"}"#),
    (Told, "POST", "/v3/auth/user/get", r#"{"name":"u"}"#),
    (
        Told,
        "POST",
        "/v3/auth/authenticate",
        r#"{"name":"u","password":"p"}"#,
    ),
    // Maintenance.
    (
        Since35,
        "POST",
        "/v3/maintenance/alarm",
        r#"{"action":"GET","alarm":"NOSPACE"}"#,
    ),
    // What is not JSON.
    (Since35, "GET", "/health", ""),
    (Told, "POST", "/health", ""),
    (Told, "HEAD", "/health", ""),
    (
        Since35,
        "GET",
        "/health?serializable=true&exclude=NOSPACE",
        "",
    ),
    (Since35, "GET", "/livez", ""),
    (Since35, "GET", "/livez?verbose", ""),
    (Since35, "POST", "/livez", ""),
    (Since35, "GET", "/readyz", ""),
    (Since35, "GET", "/readyz/data_corruption?verbose=1", ""),
    (
        Since35,
        "GET",
        "/readyz/serializable_read?exclude=serializable_read&verbose",
        "",
    ),
    (Since35, "GET", "/readyz/nothing", ""),
    (Told, "POST", "/version", ""),
    (Told, "HEAD", "/metrics", ""),
];

/// An answer without what differs from server to server.
fn comparable(answer: &Answer) -> Vec<Value> {
    let is_json = answer.header("content-type") == Some("application/json");
    if answer.body.is_empty() || !is_json {
        return vec![json!(answer.body)];
    }
    let lines = answer.body.lines().map(serde_json::from_str);
    let mut lines: Vec<Value> = lines.collect::<Result<_, _>>().expect(&answer.body);
    for line in &mut lines {
        let message = match line.get_mut("result") {
            Some(result) => result,
            None => &mut *line,
        };
        if let Some(header) = message.get_mut("header").and_then(Value::as_object_mut) {
            assert!(header.remove("cluster_id").is_some() && header.remove("member_id").is_some());
        }
    }
    lines
}

/// Sends the program to this server and to a real one, and compares the answers.
async fn compare(etcd: &str, is_35: bool) {
    let server = Server::start().await.unwrap();
    let (ours, theirs) = (Http::new(server.url()), Http::new(etcd));
    for &(refusal, method, path, body) in REQUESTS {
        if refusal == Since35 && !is_35 {
            continue;
        }
        let (ours, theirs) = tokio::join!(
            ours.ask(method, path, &[], body),
            theirs.ask(method, path, &[], body),
        );
        let told = format!("{method} {path} {body}\nours: {ours:?}\ntheirs: {theirs:?}");
        let expected = match theirs.status {
            412 => 400, // as etcd 3.4 has it
            status => status,
        };
        assert_eq!(ours.status, expected, "{told}");
        if ours.header("content-length") != Some("0") {
            let content_type = "content-type";
            let (ours, theirs) = (ours.header(content_type), theirs.header(content_type));
            if path != "/metrics" {
                assert_eq!(ours, theirs, "{told}");
            }
        }
        let (mut ours, mut theirs) = (comparable(&ours), comparable(&theirs));
        for answer in ours.iter_mut().chain(&mut theirs) {
            if let Some(answer) = answer.as_object_mut().filter(|it| it.contains_key("code")) {
                answer.remove("error");
                if refusal != Told {
                    answer.remove("message");
                }
            }
        }
        assert_eq!(ours, theirs, "{told}");
    }
}

#[tokio::test]
async fn requests_are_answered_as_etcd_3_4_answers_them() {
    let etcd = Cluster::builder().start();
    compare(&etcd.endpoint(0), false).await;
}

#[tokio::test]
async fn requests_are_answered_as_etcd_3_5_answers_them() {
    let Some(program) = server_35() else { return };
    let etcd = Cluster::builder().program(program).start();
    compare(&etcd.endpoint(0), true).await;
}

#[tokio::test]
async fn every_refusal_tells_its_text_to_old_clients_and_new_ones() {
    let server = Server::start().await.unwrap();
    let answer = Http::new(server.url()).post("/v3/kv/put", "{}").await;
    let text = "etcdserver: key is not provided";
    let expected = json!({"code": 3, "error": text, "message": text});
    assert_eq!((answer.status, answer.json()), (400, expected));
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_told_with_its_place() {
    let server = Server::start().await.unwrap();
    let http = Http::new(server.url());
    let body = "{\"key\":\"YQ==\",\n \"limit\":true}";
    let text = http.post("/v3/kv/range", body).await.json()["message"].to_string();
    assert!(
        text.contains("boolean `true`") && text.contains("line 2 column 13"),
        "{text}"
    );
    let answer = http
        .post("/v3/lease/keepalive", r#"{"ID":1} {"ID":[]}"#)
        .await;
    let last = answer.body.lines().last().unwrap();
    assert!(
        last.contains("in message 2") && last.contains("line 1"),
        "{last}"
    );
}

#[tokio::test]
async fn a_watch_tells_changes_at_once_while_its_request_goes_on() {
    let server = Server::start().await.unwrap();
    let http = Http::new(server.url());
    let create = r#"{"create_request":{"key":"dw==","watch_id":"5","prev_kv":true}}"#;
    let (half, rest) = create.split_at(20);
    let mut sending = http.open("/v3/watch", half).await;
    sending.send(rest).await;
    let mut watch = sending.answer().await;
    assert_eq!(watch.status, 200);
    assert_eq!(watch.header("content-type"), Some("application/json"));
    let created = watch.line().await.unwrap();
    assert_eq!(created["result"]["created"], json!(true));

    for value in ["MQ==", "Mg=="] {
        let body = format!(r#"{{"key":"dw==","value":"{value}"}}"#);
        http.json("/v3/kv/put", &body).await;
        let told = watch.line().await.unwrap();
        assert_eq!(told["result"]["watch_id"], json!("5"));
        let event = &told["result"]["events"][0];
        assert_eq!(event["kv"]["value"], json!(value));
        assert!(event.get("type").is_none(), "a put is the default");
    }
    http.json("/v3/kv/deleterange", r#"{"key":"dw=="}"#).await;
    let told = watch.line().await.unwrap();
    let event = &told["result"]["events"][0];
    assert_eq!(event["type"], json!("DELETE"));
    assert_eq!(event["prev_kv"]["value"], json!("Mg=="));

    watch.send(r#"{"cancel_request":{"watch_id":5}}"#).await;
    let told = watch.line().await.unwrap();
    assert_eq!(told["result"]["canceled"], json!(true));
    watch.send("zzz").await;
    let told = watch.line().await.unwrap();
    assert_eq!(
        (&told["error"]["code"], &told["error"]["grpc_code"]),
        (&json!(3), &json!(3))
    );
    assert_eq!(watch.line().await, None);
}

#[tokio::test]
async fn messages_that_are_too_large_are_refused_however_they_are_written() {
    let server = Server::start().await.unwrap();
    let http = Http::new(server.url());
    let value = "A".repeat(3 << 20);
    let body = format!(r#"{{"key":"YQ==","value":"{value}"}}"#);
    let answer = http.post("/v3/kv/put", &body).await;
    let expected = "grpc: received message larger than max (2359304 vs. 2097152)";
    assert_eq!(
        (answer.status, &answer.json()["message"]),
        (429, &json!(expected))
    );

    let endless = format!(r#"{{"unknown":"{}"#, "A".repeat(5 << 20));
    let answer = http.post("/v3/kv/put", &endless).await;
    assert_eq!(answer.status, 429, "{}", answer.body);

    let deep = format!(
        r#"{{"success":{}"#,
        r#"[{"request_txn":{"success":"#.repeat(1000)
    );
    let answer = http.post("/v3/kv/txn", &deep).await;
    assert_eq!(answer.status, 400, "{}", answer.body);
    let deep = format!("{}{}", "{\"a\":".repeat(1000), "}".repeat(1000));
    let answer = http.post("/v3/kv/txn", &deep).await;
    assert_eq!(answer.status, 400, "{}", answer.body);
}

#[tokio::test]
async fn a_request_may_say_when_it_gives_up() {
    let server = Server::start().await.unwrap();
    let http = Http::new(server.url());
    let create = r#"{"create_request":{"key":"dw=="}}"#;
    let wait = [("Grpc-Timeout", "100m")];
    let answer = http.ask("POST", "/v3/watch", &wait, create).await;
    let lines: Vec<_> = answer.body.lines().collect();
    assert!(
        lines[0].contains("created") && lines.len() == 2,
        "{answer:?}"
    );
    assert!(lines[1].contains("context deadline exceeded"), "{answer:?}");
    // Without a watch there is nothing to begin the answer with.
    let answer = http.ask("POST", "/v3/watch", &wait, "").await;
    assert_eq!((answer.status, &answer.json()["code"]), (504, &json!(4)));
    let wait = [("Grpc-Timeout", "100x")];
    let answer = http.ask("POST", "/v3/kv/range", &wait, "{}").await;
    let expected = json!("invalid grpc-timeout: 100x");
    assert_eq!((answer.status, &answer.json()["message"]), (400, &expected));
}

/// What curl prints.
async fn curl(url: &str, body: &str) -> Value {
    let mut command = Command::new("curl");
    command.args(["-sS", "--fail", "--max-time", "20", "--data", body, url]);
    let output = command
        .stdin(Stdio::null())
        .output()
        .await
        .expect("there is no curl");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{url} {body}: {errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_registers_a_host_and_reads_it_back() {
    let server = Server::start().await.unwrap();
    let at = |path: &str| format!("{}/v3/{path}", server.url());
    let lease = curl(&at("lease/grant"), r#"{"TTL":"30"}"#).await;
    let lease = lease["ID"].as_str().unwrap().to_owned();
    // hosts/web-1 -> 10.0.0.7:80
    let put = json!({"key": "aG9zdHMvd2ViLTE=", "value": "MTAuMC4wLjc6ODA=", "lease": lease});
    curl(&at("kv/put"), &put.to_string()).await;
    let range = r#"{"key":"aG9zdHMv","range_end":"aG9zdHMw"}"#;
    let found = curl(&at("kv/range"), range).await;
    assert_eq!(found["count"], json!("1"));
    assert_eq!(found["kvs"][0]["value"], json!("MTAuMC4wLjc6ODA="));
    assert_eq!(found["kvs"][0]["lease"], json!(lease));
    let kept = curl(&at("lease/keepalive"), &json!({"ID": lease}).to_string()).await;
    assert_eq!(kept["result"]["TTL"], json!("30"));
    curl(&at("lease/revoke"), &json!({"ID": lease}).to_string()).await;
    let found = curl(&at("kv/range"), range).await;
    assert!(found.get("kvs").is_none());
}

#[tokio::test]
async fn a_stream_whose_client_goes_away_ends() {
    let server = Server::start().await.unwrap();
    let http = Http::new(server.url());
    let create = r#"{"create_request":{"key":"dw=="}}"#;
    let mut watch = http.open("/v3/watch", create).await.answer().await;
    watch.line().await.unwrap();
    let length = create.len().to_string();
    let headers = [("Content-Length", &*length)];
    let whole = http.start("/v3/watch", &headers, create).await;
    let mut other = whole.answer().await;
    other.line().await.unwrap();
    drop((watch, other));
    let gone = async {
        while !http
            .get("/metrics")
            .await
            .body
            .contains("mvcc_watch_stream_total 0")
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let gone = timeout(PATIENCE, gone).await;
    gone.expect("the stream goes on without its client");
}

#[tokio::test]
async fn a_connection_serves_long_requests_one_after_the_other() {
    let server = Server::start().await.unwrap();
    let mut socket = TcpStream::connect(server.addr().unwrap()).await.unwrap();
    let value = "QUJD".repeat(5000);
    let body = format!(r#"{{"key":"Zm9v","value":"{value}"}}"#);
    for revision in 2..5 {
        let length = body.len();
        let head =
            format!("POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
        socket.write_all((head + &body).as_bytes()).await.unwrap();
        let mut answer = String::new();
        while !answer.ends_with('}') {
            let mut some = [0; 1024];
            let read = timeout(PATIENCE, socket.read(&mut some)).await;
            let count = read.expect("no answer").unwrap();
            assert!(count > 0, "{answer}");
            answer += std::str::from_utf8(&some[..count]).unwrap();
        }
        assert!(
            answer.contains(&format!(r#""revision":"{revision}""#)),
            "{answer}"
        );
    }
}
