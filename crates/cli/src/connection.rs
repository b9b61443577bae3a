//! From what was typed, and the environment, to the options of a client.

use std::{
    env, fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use quorate::{
    ConnectOptions, Result,
    backend::etcd::{Identity, Tls},
};

use crate::{args::Connect, failure::invalid};

/// The options of the client. `environment` looks a variable up.
pub(crate) fn options(
    args: &Connect,
    environment: impl Fn(&'static str) -> Result<Option<String>>,
) -> Result<ConnectOptions> {
    let address = Address::find(args, &environment)?;
    let mut options =
        ConnectOptions::parse(&address.text).map_err(|error| error.context(address.source))?;
    if let Some(tls) = tls(args, &address, &environment)? {
        options = options.tls(tls);
    }
    if let Some((name, password)) = user(args, &address, &environment)? {
        options = options.user(name, password);
    }
    if let Some(namespace) = &args.namespace {
        options = options.namespace(namespace.as_bytes());
    }
    if let Some(timeout) = args.timeout {
        options = options.timeout(timeout);
    }
    Ok(options)
}

/// Looks a variable up; an empty one counts as none.
pub(crate) fn environment(name: &'static str) -> Result<Option<String>> {
    let value = env::var_os(name).filter(|value| !value.is_empty());
    value
        .map(|value| {
            value
                .into_string()
                .map_err(|_| invalid(format!("{name} is no UTF-8 text")))
        })
        .transpose()
}

/// The address of the store.
struct Address {
    /// Where it was found, for messages.
    source: &'static str,
    text: String,
}

impl Address {
    fn find(
        args: &Connect,
        environment: impl Fn(&'static str) -> Result<Option<String>>,
    ) -> Result<Self> {
        let servers = (!args.servers.is_empty()).then(|| args.servers.join(","));
        let typed = match (&args.url, servers) {
            (Some(_), Some(_)) => {
                return Err(invalid("--url and --servers both name the store: drop one"));
            }
            (Some(url), None) => Some(("--url", url.clone())),
            (None, Some(servers)) => Some(("--servers", servers)),
            (None, None) => None,
        };
        if let Some((source, text)) = typed {
            return Ok(Self { source, text });
        }
        for source in ["QUORATE_URL", "ETCD_SERVERS", "ETCDCTL_ENDPOINTS"] {
            if let Some(text) = environment(source)? {
                return Ok(Self { source, text });
            }
        }
        Ok(Self {
            source: "the default address",
            text: "127.0.0.1:2379".to_owned(),
        })
    }

    fn has_scheme(&self, scheme: &str) -> bool {
        let start = self.text.trim_start().get(..scheme.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    }

    fn has_option(&self, names: &[&str]) -> bool {
        let query = self.text.split_once('?').map_or("", |(_, query)| query);
        query.split('&').any(|option| {
            let name = option.split('=').next().unwrap_or_default();
            names.contains(&name)
        })
    }

    fn has_tls(&self) -> bool {
        self.has_option(&["ca", "cert", "key", "server_name", "tls"])
    }

    /// Anywhere but after a user an `@` is percent-encoded.
    fn has_user(&self) -> bool {
        self.text.contains('@') || self.has_option(&["user"])
    }
}

fn tls(
    args: &Connect,
    address: &Address,
    environment: impl Fn(&'static str) -> Result<Option<String>>,
) -> Result<Option<Tls>> {
    let is_typed = args.cacert.is_some()
        || args.tls_cert.is_some()
        || args.tls_key.is_some()
        || args.server_name.is_some();
    if is_typed && address.has_scheme("http://") {
        return Err(invalid(
            "http:// is without TLS: write https://, or drop --cacert, --cert, --key and --server-name",
        ));
    }
    if is_typed && address.has_tls() {
        return Err(invalid(
            "the address has TLS options, and so has the command line: drop one",
        ));
    }
    if address.has_scheme("mem:") || address.has_scheme("http://") || address.has_tls() {
        return Ok(None);
    }
    let read = |typed: &Option<PathBuf>, variable| -> Result<Option<Vec<u8>>> {
        match typed {
            Some(path) => file(path).map(Some),
            None => environment(variable)?
                .map(|path| file(path.as_ref()))
                .transpose(),
        }
    };
    let ca = read(&args.cacert, "ETCDCTL_CACERT")?;
    let certificate = read(&args.tls_cert, "ETCDCTL_CERT")?;
    let key = read(&args.tls_key, "ETCDCTL_KEY")?;
    let identity = match (certificate, key) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some(Identity { certificate, key }),
        _ => return Err(invalid("--cert and --key go together: one is missing")),
    };
    if ca.is_none() && identity.is_none() && args.server_name.is_none() {
        return Ok(None);
    }
    Ok(Some(Tls {
        ca,
        identity,
        server_name: args.server_name.clone(),
    }))
}

fn file(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| invalid(format!("cannot read {}: {error}", path.display())))
}

/// Name and password. A password beside the name, typed or in the environment, leaves the name whole;
/// else what follows a colon is the password.
fn user(
    args: &Connect,
    address: &Address,
    environment: impl Fn(&'static str) -> Result<Option<String>>,
) -> Result<Option<(String, String)>> {
    if args.user.is_none() && address.has_user() {
        return match args.password {
            Some(_) => Err(invalid("--password needs --user")),
            None => Ok(None),
        };
    }
    let variable = environment("ETCDCTL_PASSWORD")?;
    let (user, beside, fallback) = match &args.user {
        Some(user) => (user.clone(), args.password.clone(), variable),
        None => match environment("ETCDCTL_USER")? {
            Some(user) => (user, args.password.clone().or(variable), None),
            None if args.password.is_some() => return Err(invalid("--password needs --user")),
            None => return Ok(None),
        },
    };
    if let Some(password) = beside {
        return Ok(Some((user, password)));
    }
    if let Some((name, password)) = user.split_once(':') {
        return Ok(Some((name.to_owned(), password.to_owned())));
    }
    match fallback {
        Some(password) => Ok(Some((user, password))),
        None => Err(invalid(
            "the user needs a password: write NAME:PASSWORD, --password or ETCDCTL_PASSWORD",
        )),
    }
}
