//! The parts of an address that name a cluster: hosts, user, TLS.

use std::{fs::File, io::Read, net::Ipv6Addr, time::Duration};

use super::{
    ConnectOptions, invalid, namespace_prefix,
    url::{Query, decoded, text},
};
use crate::{
    Result,
    backend::etcd::{EtcdOptions, Identity, Tls, User},
};

/// Reads hosts, with user and namespace, and what the options say of clusters.
pub(super) fn parse(hosts: &str, query: &mut Query) -> Result<ConnectOptions> {
    let Hosts {
        scheme,
        user,
        addresses,
        path,
    } = Hosts::parse(hosts, query)?;
    let tls = tls(scheme, query)?;
    let etcd = EtcdOptions {
        endpoints: endpoints(&addresses, tls.is_some()),
        tls,
        ..EtcdOptions::default()
    };
    let mut options = connection(etcd, user, query)?;
    options.namespace = namespace_prefix(path);
    Ok(options)
}

/// Reads what the options say of every connection over gRPC.
pub(super) fn connection(
    mut etcd: EtcdOptions,
    user: Option<User>,
    query: &mut Query,
) -> Result<ConnectOptions> {
    etcd.user = self::user(user, query)?;
    for (name, field) in [
        ("attempt_timeout", &mut etcd.attempt_timeout),
        ("connect_timeout", &mut etcd.connect_timeout),
        ("keepalive_interval", &mut etcd.keepalive_interval),
        ("keepalive_timeout", &mut etcd.keepalive_timeout),
    ] {
        if let Some(duration) = query.duration(name)? {
            *field = duration;
        }
    }
    if etcd.keepalive_interval < SHORTEST_KEEPALIVE {
        return Err(invalid(
            "servers refuse a keepalive_interval below 5s: write 5s or more",
        ));
    }
    Ok(ConnectOptions::from(etcd))
}

/// A cluster from hosts that may have a port, and the port of those that have none.
pub(super) fn hosts<H: AsRef<str>>(
    hosts: impl IntoIterator<Item = H>,
    port: u16,
) -> Result<ConnectOptions> {
    if port == 0 {
        return Err(invalid("port 0 is none: write 2379"));
    }
    let address = |host: H| {
        let host = host.as_ref().trim();
        match host.parse::<Ipv6Addr>() {
            Ok(ip) => Ok(format!("[{ip}]:{port}")),
            Err(_) => {
                address(host, port).map_err(|message| invalid(format!("host {host:?}: {message}")))
            }
        }
    };
    let addresses = hosts.into_iter().map(address).collect::<Result<Vec<_>>>()?;
    if addresses.is_empty() {
        return Err(invalid("there is no host: write at least one"));
    }
    Ok(ConnectOptions::from(EtcdOptions {
        endpoints: endpoints(&addresses, false),
        ..EtcdOptions::default()
    }))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    /// TLS as the options say.
    Etcd,
    Http,
    Https,
}

impl Scheme {
    fn parse(scheme: &str) -> Result<Self> {
        match scheme.to_ascii_lowercase().as_str() {
            "etcd" => Ok(Self::Etcd),
            "http" => Ok(Self::Http),
            "https" => Ok(Self::Https),
            _ => Err(invalid(
                "the schemes are etcd://, http:// and https://, the same for all hosts; and local:, \
                 mem: and unix:",
            )),
        }
    }
}

/// What stands before the options.
struct Hosts {
    scheme: Scheme,
    user: Option<User>,
    /// `host:port` each.
    addresses: Vec<String>,
    path: Vec<u8>,
}

impl Hosts {
    fn parse(hosts: &str, query: &Query) -> Result<Self> {
        let mut items = Vec::new();
        for part in hosts.split([',', ';']) {
            let before = items.len();
            items.extend(part.split_whitespace());
            if items.len() == before {
                return Err(invalid(
                    "there is a comma or semicolon with no host beside it",
                ));
            }
        }
        let mut parsed = Self {
            scheme: Scheme::Etcd,
            user: None,
            addresses: Vec::new(),
            path: Vec::new(),
        };
        for (index, item) in items.iter().enumerate() {
            let is_first = index == 0;
            let rest = match item.split_once("://") {
                Some((scheme, rest)) => {
                    let scheme = Scheme::parse(scheme)?;
                    if is_first {
                        parsed.scheme = scheme;
                    } else if parsed.scheme != scheme || !items[0].contains("://") {
                        return Err(invalid("every host has the scheme of the first, or none"));
                    }
                    rest
                }
                None => item,
            };
            let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
            if path.contains('@') || !is_first && authority.contains('@') {
                return Err(invalid(
                    "user:password@ stands before the first host; percent-encode @ / ? , ; in it, and \
                     @ elsewhere",
                ));
            }
            let is_last = index + 1 == items.len();
            if !is_last && !path.is_empty() {
                return Err(invalid("the namespace stands once, after the last host"));
            }
            parsed.path = decoded(path)?;
            let host = match authority.rsplit_once('@') {
                Some((user, host)) => {
                    parsed.user = Some(Self::user(user)?);
                    host
                }
                None => authority,
            };
            let address = address(host, DEFAULT_PORT)
                .map_err(|message| invalid(format!("host{}: {message}", query.quoted(host))))?;
            parsed.addresses.push(address);
        }
        Ok(parsed)
    }

    fn user(user: &str) -> Result<User> {
        let Some((name, password)) = user.split_once(':') else {
            return Err(invalid("before @ stand user and password: user:password@"));
        };
        if user.contains('@') {
            return Err(invalid("write @ as %40 in user and password"));
        }
        if name.is_empty() {
            return Err(invalid("the user before @ is empty"));
        }
        Ok(User {
            name: text(decoded(name)?, "the user")?,
            password: text(decoded(password)?, "the password")?,
        })
    }
}

/// Reads `host`, `host:port`, `[ip]` or `[ip]:port`, or says what is wrong with it.
fn address(address: &str, default_port: u16) -> Result<String, &'static str> {
    let (host, port) = match address.strip_prefix('[') {
        Some(bracketed) => {
            let Some((ip, rest)) = bracketed.split_once(']') else {
                return Err("a [ has no ]");
            };
            let Ok(ip) = ip.parse::<Ipv6Addr>() else {
                return Err("in brackets stands an IPv6 address, such as [::1]:2379");
            };
            let port = match rest {
                "" => None,
                _ => Some(rest.strip_prefix(':').unwrap_or_default()),
            };
            (format!("[{ip}]"), port)
        }
        None => {
            let (host, port) = match address.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (address, None),
            };
            if port.is_some_and(|port| port.contains(':')) {
                return Err(
                    "a host has one port; an IPv6 address stands in brackets, such as [::1]:2379",
                );
            }
            if host.is_empty() {
                return Err("a host is empty: write one, such as 127.0.0.1:2379");
            }
            if !host
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
            {
                return Err("a host is made of letters, digits, dots and hyphens");
            }
            (host.to_owned(), port)
        }
    };
    let port = match port {
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().unwrap_or(0),
        Some(_) => 0,
        None => default_port,
    };
    if port == 0 {
        return Err("a port is a number from 1 to 65535, such as 2379");
    }
    Ok(format!("{host}:{port}"))
}

/// The addresses as URLs, each once.
fn endpoints(addresses: &[String], tls: bool) -> Vec<String> {
    let scheme = if tls { "https" } else { "http" };
    let mut endpoints = Vec::new();
    for address in addresses {
        let endpoint = format!("{scheme}://{address}");
        if !endpoints.contains(&endpoint) {
            endpoints.push(endpoint);
        }
    }
    endpoints
}

fn user(before_hosts: Option<User>, query: &mut Query) -> Result<Option<User>> {
    let (name, password) = (query.text("user")?, query.text("password")?);
    match (before_hosts, name, password) {
        (user, None, None) => Ok(user),
        (None, Some(name), Some(password)) if !name.is_empty() => Ok(Some(User { name, password })),
        (None, Some(_), Some(_)) => Err(invalid("option user is empty")),
        (None, Some(_), None) => Err(invalid("option user needs option password")),
        (None, None, Some(_)) => Err(invalid("option password needs option user")),
        (Some(_), ..) => Err(invalid(
            "the user stands before the hosts and as an option: drop one",
        )),
    }
}

fn tls(scheme: Scheme, query: &mut Query) -> Result<Option<Tls>> {
    let switch = query.text("tls")?;
    let ca = query.text("ca")?;
    let cert = query.text("cert")?;
    let key = query.text("key")?;
    let server_name = query.text("server_name")?;
    let has_details = [&ca, &cert, &key, &server_name]
        .iter()
        .any(|option| option.is_some());
    let enabled = match switch.as_deref() {
        None => has_details || scheme == Scheme::Https,
        Some("off") if has_details => {
            return Err(invalid(
                "tls=off stands beside ca, cert, key or server_name: drop one",
            ));
        }
        Some("off") if scheme == Scheme::Https => {
            return Err(invalid(
                "tls=off contradicts https://: write http:// or etcd://",
            ));
        }
        Some("off") => false,
        Some("system") if ca.is_some() => {
            return Err(invalid(
                "tls=system and ca name different authorities: drop one",
            ));
        }
        Some("system") => true,
        Some(_) => return Err(invalid("option tls is system or off")),
    };
    if !enabled {
        return Ok(None);
    }
    if scheme == Scheme::Http {
        return Err(invalid("http:// is without TLS: write https:// or etcd://"));
    }
    if server_name.as_ref().is_some_and(String::is_empty) {
        return Err(invalid("option server_name is empty: leave it out"));
    }
    let identity = match (cert, key) {
        (None, None) => None,
        (Some(cert), Some(key)) => Some(Identity {
            certificate: pem("cert", &cert)?,
            key: pem("key", &key)?,
        }),
        _ => return Err(invalid("options cert and key go together: one is missing")),
    };
    Ok(Some(Tls {
        ca: ca.map(|ca| pem("ca", &ca)).transpose()?,
        identity,
        server_name,
    }))
}

/// Reads a file, but no endless one.
fn pem(option: &str, path: &str) -> Result<Vec<u8>> {
    let mut pem = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_PEM).read_to_end(&mut pem))
        .map_err(|error| {
            invalid(format!("option {option}: cannot read {path}: {error}")).because(error)
        })?;
    if !pem.windows(BEGIN.len()).any(|window| window == BEGIN) {
        return Err(invalid(format!("option {option}: {path} is no PEM file")));
    }
    Ok(pem)
}

const DEFAULT_PORT: u16 = 2379;

/// Servers close connections that are probed more often (`MinTime` of etcd's keepalive policy).
const SHORTEST_KEEPALIVE: Duration = Duration::from_secs(5);

/// The most of a PEM file that is read, in bytes.
const MAX_PEM: u64 = 1 << 20;

const BEGIN: &[u8] = b"-----BEGIN ";
