//! Addresses: any text, and such as are nearly right. Nothing is started or connected.

use std::time::Duration;

use arbitrary::{Result, Unstructured};
use quorate::{
    Client, ConnectOptions, ErrorKind, Runtime as _, TokioRuntime, backend::etcd::EtcdOptions,
    duration::parse_duration,
};

use crate::{hostile::clients::call, paused};

/// What no message may show.
const SECRET: &str = "hunter2";

/// How many parts an address has at most.
const MAX_PARTS: usize = 24;

/// What addresses are made of. The second half is what most of them end with.
const PARTS: &[&str] = &[
    "etcd://",
    "http://",
    "https://",
    "mem:",
    "unix:",
    "local:",
    "UNIX:",
    "//",
    "/",
    ":",
    "@",
    ",",
    ";",
    " ",
    "?",
    "&",
    "=",
    "%",
    "#",
    "%2f",
    "%00",
    "%ff",
    "[",
    "]",
    "[::1]",
    "127.0.0.1",
    "host",
    ":2379",
    ":0",
    ":99999",
    "user",
    "prod",
    "x",
    "\u{e9}",
    "\u{0}",
    "system",
    "off",
    "0",
    "5s",
    "1h",
    "0.5",
    "1ms",
    "9000000000",
    "99999999999999999999",
    "-1",
    "1e9",
    "attempt_timeout=",
    "ca=",
    "cert=",
    "connect_timeout=",
    "holder=",
    "keepalive_interval=",
    "keepalive_timeout=",
    "key=",
    "namespace=",
    "password=",
    "server_name=",
    "timeout=",
    "tls=",
    "ttl=",
    "user=",
];

/// Runs one input: an address as it is, or one of parts.
pub(crate) fn feed(input: &[u8]) {
    let mut u = Unstructured::new(input);
    let plain = u.ratio(1, 4).unwrap_or(true);
    let address = if plain {
        String::from_utf8_lossy(u.take_rest()).into_owned()
    } else {
        let mut address = String::new();
        // The input has ended.
        let _ = compose(&mut u, &mut address);
        address
    };
    let _ = parse_duration(&address);
    paused(try_address(&address));
}

fn compose(u: &mut Unstructured<'_>, address: &mut String) -> Result<()> {
    for _ in 0..MAX_PARTS {
        if u.is_empty() {
            break;
        }
        match u.int_in_range(0..=15)? {
            0 => address.push(u.arbitrary()?),
            1 => {
                // A user, or an option.
                address.push_str(if u.ratio(1, 2)? { "u:" } else { "password=" });
                address.push_str(SECRET);
                if u.ratio(1, 2)? {
                    address.push('@');
                }
            }
            _ => address.push_str(u.choose(PARTS)?),
        }
    }
    Ok(())
}

async fn try_address(address: &str) {
    let options = match ConnectOptions::parse(address) {
        Ok(options) => options,
        Err(error) => {
            let kinds = [ErrorKind::InvalidArgument, ErrorKind::Unsupported];
            assert!(kinds.contains(&error.kind()), "{error:?}");
            // Whose secret that is cannot be told where nothing says that it is one.
            let is_secret = address.contains("password=") || address.contains('@');
            assert!(
                !(is_secret && error.to_string().contains(SECRET)),
                "{error}"
            );
            return;
        }
    };
    // It may stand elsewhere as well, where it is none.
    let is_password = ["etcd", "http", "https"]
        .iter()
        .any(|scheme| address.starts_with(&format!("{scheme}://u:{SECRET}@")));
    let is_once = address.matches(SECRET).count() == 1;
    let shown = format!("{options:?}");
    assert!(
        !(is_password && is_once && shown.contains(SECRET)),
        "{address:?}: {shown}"
    );
    // Moments of any distance can be told.
    let _ = TokioRuntime::new().now() + Duration::MAX;
    let Ok(client) = Client::connect(options).await else {
        return;
    };
    let endpoints = client.endpoints();
    if !endpoints
        .iter()
        .any(|endpoint| endpoint.starts_with("mem:"))
    {
        // What they were read as is what is meant by them.
        let again = ConnectOptions::from(EtcdOptions {
            endpoints: endpoints.clone(),
            ..EtcdOptions::default()
        });
        let again = Client::connect(again).await.expect("endpoints");
        assert_eq!(again.endpoints(), endpoints);
        return;
    }
    call("put", client.put("key", "value"))
        .await
        .expect("a store in memory");
    let session = call("session", client.session()).await;
    assert!(!session.expect("a store in memory").is_lost());
    call("close", client.close())
        .await
        .expect("a store in memory");
}
