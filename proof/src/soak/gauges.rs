//! What the members say of themselves.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// How long a member may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The watches that are open on all members, and the streams that they share.
pub(crate) async fn watches(endpoints: &[String]) -> Result<(u64, u64), String> {
    let (mut watches, mut streams) = (0, 0);
    for endpoint in endpoints {
        let text = timeout(PATIENCE, metrics(endpoint)).await;
        let text = text.map_err(|_| format!("{endpoint} tells no metrics"))?;
        let text = text.map_err(|error| format!("{endpoint}: {error}"))?;
        watches += gauge(&text, "etcd_debugging_mvcc_watcher_total")?;
        streams += gauge(&text, "etcd_debugging_mvcc_watch_stream_total")?;
    }
    Ok((watches, streams))
}

/// Asks for all that a member measures.
async fn metrics(endpoint: &str) -> std::io::Result<String> {
    let host = endpoint.trim_start_matches("http://");
    let mut stream = TcpStream::connect(host).await?;
    let request = format!("GET /metrics HTTP/1.0\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

fn gauge(text: &str, name: &str) -> Result<u64, String> {
    let line = { text.lines() }.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = line.and_then(|value| value.trim().parse().ok());
    value.ok_or_else(|| format!("no member measures {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_is_found_by_its_whole_name() {
        let text = "# HELP a b\na_total 7\na 3\n";
        assert_eq!(gauge(text, "a"), Ok(3));
        assert_eq!(gauge(text, "a_total"), Ok(7));
        assert!(gauge(text, "b").is_err());
    }
}
