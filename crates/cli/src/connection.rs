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
    let is_socket = address.has_scheme("unix:") || address.has_scheme("local:");
    if is_typed && is_socket {
        return Err(invalid(
            "a socket is without TLS: drop --cacert, --cert, --key and --server-name",
        ));
    }
    if is_typed && address.has_tls() {
        return Err(invalid(
            "the address has TLS options, and so has the command line: drop one",
        ));
    }
    let is_plain = is_socket || address.has_scheme("mem:") || address.has_scheme("http://");
    if is_plain || address.has_tls() {
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

/// Reads a file that the command line names.
pub(crate) fn file(path: &Path) -> Result<Vec<u8>> {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What the options come to, as Debug tells it, with these variables.
    fn shown(args: &Connect, variables: &[(&str, &str)]) -> Result<String> {
        let lookup = |name: &str| {
            let found = variables.iter().find(|(other, _)| *other == name);
            Ok(found.map(|(_, value)| (*value).to_owned()))
        };
        options(args, lookup).map(|options| format!("{options:?}"))
    }

    fn refusal(args: &Connect, variables: &[(&str, &str)]) -> String {
        shown(args, variables)
            .expect_err("it is refused")
            .to_string()
    }

    #[test]
    fn the_first_that_is_given_names_the_store() {
        let variables = [
            ("QUORATE_URL", "etcd://by-url"),
            ("ETCD_SERVERS", "by-servers"),
            ("ETCDCTL_ENDPOINTS", "http://by-endpoints:1"),
        ];
        let url = Connect {
            url: Some("etcd://typed".to_owned()),
            ..Connect::default()
        };
        let servers = Connect {
            servers: vec!["typed-a:1".to_owned(), "typed-b".to_owned()],
            ..Connect::default()
        };
        let nothing = Connect::default();
        for (args, variables, endpoint) in [
            (&url, &variables[..], "\"http://typed:2379\""),
            (
                &servers,
                &variables,
                "\"http://typed-a:1\", \"http://typed-b:2379\"",
            ),
            (&nothing, &variables, "\"http://by-url:2379\""),
            (&nothing, &variables[1..], "\"http://by-servers:2379\""),
            (&nothing, &variables[2..], "\"http://by-endpoints:1\""),
            (&nothing, &[], "\"http://127.0.0.1:2379\""),
        ] {
            let shown = shown(args, variables).unwrap();
            assert!(shown.contains(&format!("[{endpoint}]")), "{shown}");
        }
    }

    #[test]
    fn a_bad_address_is_refused_with_where_it_was_found() {
        let refusal = refusal(&Connect::default(), &[("ETCD_SERVERS", "h:0")]);
        assert!(
            refusal.starts_with("ETCD_SERVERS: the address: "),
            "{refusal}"
        );
    }

    #[test]
    fn a_namespace_lies_inside_that_of_the_url() {
        let args = Connect {
            url: Some("etcd://h/outer".to_owned()),
            namespace: Some("inner".into()),
            ..Connect::default()
        };
        assert!(shown(&args, &[]).unwrap().contains("\"outer/inner/\""));
    }

    #[test]
    fn tls_of_the_environment_gives_way_to_an_address_that_says_more() {
        let directory = tempfile::tempdir().unwrap();
        let ca = directory.path().join("ca.pem");
        fs::write(&ca, "-----BEGIN CERTIFICATE-----").unwrap();
        let variable = [("ETCDCTL_CACERT", ca.to_str().unwrap())];
        let mut args = Connect {
            url: Some("h:1".to_owned()),
            ..Connect::default()
        };
        assert!(shown(&args, &variable).unwrap().contains("\"https://h:1\""));
        for url in [
            "http://h:1",
            "etcd://h:1?tls=off",
            "mem:",
            "unix:/a",
            "local:",
        ] {
            args.url = Some(url.to_owned());
            assert!(!shown(&args, &variable).unwrap().contains("https"), "{url}");
        }
        args.cacert = Some(ca.clone());
        args.url = Some("http://h:1".to_owned());
        assert!(refusal(&args, &[]).contains("http:// is without TLS"));
        args.url = Some("local:".to_owned());
        assert!(refusal(&args, &[]).contains("a socket is without TLS"));
        args.url = Some("etcd://h:1?tls=system".to_owned());
        assert!(refusal(&args, &[]).contains("drop one"));
        args.url = None;
        args.tls_cert = Some(ca);
        assert!(refusal(&args, &[]).contains("--key"));
        args.tls_key = Some(directory.path().join("absent"));
        assert!(refusal(&args, &[]).contains("cannot read"));
    }

    #[test]
    fn user_and_password_are_found_where_etcdctl_finds_them() {
        let found = |url: &str, typed: [Option<&str>; 2], variables: [Option<&str>; 2]| {
            let args = Connect {
                user: typed[0].map(str::to_owned),
                password: typed[1].map(str::to_owned),
                ..Connect::default()
            };
            let address = Address {
                source: "--url",
                text: url.to_owned(),
            };
            let lookup = |name: &str| {
                let value = variables[usize::from(name == "ETCDCTL_PASSWORD")];
                Ok(value.map(str::to_owned))
            };
            let pair = user(&args, &address, lookup).map_err(|_| "refused")?;
            Ok(pair.map(|(name, password)| format!("{name} {password}")))
        };
        let some = |pair: &str| Ok(Some(pair.to_owned()));
        assert_eq!(found("h", [None; 2], [None; 2]), Ok(None));
        assert_eq!(found("h", [Some("u:p"), None], [None; 2]), some("u p"));
        assert_eq!(
            found("h", [Some("u:p"), Some("q")], [None; 2]),
            some("u:p q")
        );
        assert_eq!(
            found("h", [Some("u"), None], [None, Some("q")]),
            some("u q")
        );
        assert_eq!(
            found("h", [Some("u:p"), None], [None, Some("q")]),
            some("u p")
        );
        assert_eq!(found("h", [None; 2], [Some("u:p"), None]), some("u p"));
        assert_eq!(found("h", [None; 2], [Some("u"), Some("q")]), some("u q"));
        assert_eq!(
            found("h", [None, Some("r")], [Some("u"), Some("q")]),
            some("u r")
        );
        assert_eq!(found("v:w@h", [None; 2], [Some("u:p"), None]), Ok(None));
        assert_eq!(found("v:w@h", [Some("u:p"), None], [None; 2]), some("u p"));
        assert_eq!(found("h", [Some("u"), None], [None; 2]), Err("refused"));
        assert_eq!(found("h", [None, Some("q")], [None; 2]), Err("refused"));
        assert_eq!(found("v:w@h", [None, Some("q")], [None; 2]), Err("refused"));
    }
}
