use proptest::prelude::*;

use super::*;

fn parse(address: &str) -> ConnectOptions {
    ConnectOptions::parse(address).unwrap_or_else(|error| panic!("{address}: {error}"))
}

fn memory(address: &str) -> Option<String> {
    match parse(address).target {
        Target::Memory(name) => name,
        #[cfg(feature = "etcd")]
        Target::Etcd(_) => panic!("{address} is a cluster"),
    }
}

fn refusal(address: &str) -> String {
    let error = ConnectOptions::parse(address).expect_err(address);
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{address}");
    error.to_string()
}

#[test]
fn mem_is_private_without_a_name_and_shared_with_one() {
    assert_eq!(memory("mem:"), None);
    assert_eq!(memory(" MEM:\n"), None);
    assert_eq!(memory("mem:a").as_deref(), Some("a"));
    assert_eq!(memory("mem:a%2Fb%20c").as_deref(), Some("a/b c"));
    assert_eq!(memory("mem:2379").as_deref(), Some("2379"));
}

#[test]
fn memory_takes_the_options_that_every_store_has() {
    let options = parse("mem:x?namespace=a%2Fb&timeout=1500ms&ttl=1&holder=me@home");
    assert_eq!(options.namespace, "a/b/");
    assert_eq!(options.timeout, Duration::from_millis(1500));
    assert_eq!(options.session_ttl, Duration::from_secs(1));
    assert_eq!(options.holder.as_deref(), Some("me@home"));
    assert_eq!(parse("mem:?namespace=/a/").namespace, "/a/");
    assert_eq!(parse("mem:?namespace=%ff").namespace, Key::from(b"\xff/"));
}

#[test]
fn what_is_wrong_with_memory_is_said() {
    for (address, hint) in [
        ("", "mem:"),
        ("mem", "etcd://mem"),
        ("mem://x", "without slashes"),
        ("mem:x/prod", "mem:NAME?namespace=..."),
        ("mem:a,b", "one name"),
        ("mem:%", "%25"),
        ("mem:%f", "%25"),
        ("mem:%ff", "UTF-8"),
        ("mem:#", "%23"),
        ("mem:?ca=x", "option ca is for clusters"),
        ("mem:?namespace=", "leave it out"),
        ("mem:?namespace", "name=value"),
        ("mem:?ttl=1&", "name=value"),
        (
            "mem:?TTL=1",
            "unknown option \"TTL\"; the options are attempt_timeout, ca,",
        ),
        ("mem:?ttl=1&ttl=1", "option ttl stands twice"),
        ("mem:?ttl=0", "option ttl is zero"),
        ("mem:?ttl=1d", "option ttl: write a duration"),
        ("mem:?timeout=1s,ttl=1s", "percent-encode"),
    ] {
        let message = refusal(address);
        assert!(message.contains(hint), "{address}: {message}");
    }
}

#[test]
fn namespaces_nest_and_end_with_a_slash() {
    let options = parse("mem:?namespace=a")
        .namespace("b")
        .namespace("")
        .namespace("c/");
    assert_eq!(options.namespace, "a/b/c/");
}

#[test]
fn numbers_that_cannot_work_are_refused() {
    let good = ConnectOptions::memory;
    assert!(good().check().is_ok());
    assert!(good().session_ttl(Duration::from_millis(1)).check().is_ok());
    for bad in [
        good().timeout(Duration::ZERO),
        good().session_ttl(Duration::ZERO),
        good().session_ttl(Duration::MAX),
        good().drift(-0.1),
        good().drift(0.5),
        good().drift(f64::NAN),
        good().drift(0.499).session_ttl(Duration::from_secs(1)),
        good().margin(Duration::from_secs(9)),
    ] {
        let kind = bad.check().unwrap_err().kind();
        assert_eq!(kind, ErrorKind::InvalidArgument, "{bad:?}");
    }
}

#[cfg(not(feature = "etcd"))]
#[test]
fn clusters_are_unsupported_without_the_feature() {
    for address in ["etcd://a", "http://a", "a:2379", "unix:/a", "local:a"] {
        let error = ConnectOptions::parse(address).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
    let error = ConnectOptions::hosts(["a"], 2379).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC*") {
        let _ = ConnectOptions::parse(&text);
    }

    #[test]
    fn nothing_made_of_the_grammar_panics(parts in prop::collection::vec(part(), 0..12)) {
        let _ = ConnectOptions::parse(&parts.concat());
    }

    /// Wherever a password stands, and whatever is wrong around it.
    #[test]
    fn no_message_holds_a_password(
        before in prop::collection::vec(part(), 0..6),
        introduction in prop::sample::select(&["u:", "etcd://u:", "?password=", "&user=u&password="]),
        inside in prop::sample::select(&["", "@", "/", "?", ",", ";", "#", "%", "&", "=", ":", " "]),
        after in prop::collection::vec(part(), 0..6),
    ) {
        let introduced = introduction.starts_with(['?', '&']);
        let end = if introduced { "" } else { "@" };
        let (before, after) = (before.concat(), after.concat());
        let text = format!("{before}{introduction}SECRET{inside}SECRET{end}{after}");
        // What is accepted means what it says, and may show a name where a password was meant.
        if let Err(error) = ConnectOptions::parse(&text) {
            let shown = format!("{error} {error:?}");
            prop_assert!(!shown.contains("SECRET"), "{text}: {shown}");
        }
    }
}

fn part() -> impl Strategy<Value = String> {
    const PARTS: &[&str] = &[
        "mem:",
        "local:",
        "unix:",
        "/run/a",
        "..",
        "etcd://",
        "http://",
        "https://",
        "a",
        "host",
        "127.0.0.1",
        "[::1]",
        "[",
        "]",
        ":",
        ":2379",
        ":0",
        ":99999",
        ",",
        ";",
        " ",
        "/",
        "?",
        "&",
        "=",
        "@",
        "u:p@",
        "%",
        "%2",
        "%2f",
        "%ff",
        "#",
        "\u{e9}",
        "\0",
        "tls=system",
        "tls=off",
        "ca=/nowhere",
        "ttl=",
        "timeout=3s",
        "namespace=n",
        "holder=",
        "server_name=",
        "keepalive_interval=5s",
    ];
    prop::sample::select(PARTS).prop_map(str::to_owned).boxed()
}

#[cfg(feature = "etcd")]
mod clusters {
    use super::*;

    fn etcd(address: &str) -> EtcdOptions {
        match parse(address).target {
            Target::Etcd(etcd) => etcd,
            Target::Memory(_) => panic!("{address} is in memory"),
        }
    }

    #[test]
    fn every_way_to_list_hosts_says_the_same() {
        for address in [
            "etcd://a:1,b:2379",
            "etcd://a:1;b:2379/",
            "ETCD://a:1 b",
            "http://a:1,http://b:2379",
            "http://a:1/, http://b:2379/",
            "http://a:1,b,a:1",
            "a:1,b",
            "a:1; b:2379",
            " a:1\n\tb:2379 ",
            "etcd://a:1,b:2379?tls=off",
        ] {
            let etcd = etcd(address);
            assert_eq!(etcd.endpoints, ["http://a:1", "http://b:2379"], "{address}");
            assert!(etcd.tls.is_none());
        }
    }

    #[test]
    fn ipv6_addresses_stand_in_brackets() {
        let etcd = etcd("etcd://[::1],[2001:DB8::1]:99");
        assert_eq!(
            etcd.endpoints,
            ["http://[::1]:2379", "http://[2001:db8::1]:99"]
        );
    }

    #[test]
    fn the_path_is_the_namespace_and_ends_with_a_slash() {
        for (address, namespace) in [
            ("etcd://a", ""),
            ("etcd://a/", ""),
            ("etcd://a/prod", "prod/"),
            ("etcd://a/prod/", "prod/"),
            ("etcd://a//prod", "/prod/"),
            ("etcd://a/x/y?ttl=3s", "x/y/"),
            ("a,b/x%2Cy", "x,y/"),
            ("etcd://a?namespace=x", "x/"),
        ] {
            assert_eq!(parse(address).namespace, namespace, "{address}");
        }
    }

    #[test]
    fn user_and_password_stand_before_the_hosts_or_among_the_options() {
        for address in [
            "etcd://root:a%3Ab%40%2F@h1,h2/x",
            "etcd://h1?user=root&password=a:b@%2F",
        ] {
            let user = etcd(address).user.unwrap();
            assert_eq!((&*user.name, &*user.password), ("root", "a:b@/"));
            assert!(!format!("{:?}", parse(address)).contains("a:b"));
        }
        assert_eq!(etcd("u:@h").user.unwrap().password, "");
    }

    #[test]
    fn options_reach_the_backend() {
        let options = parse(
            "etcd://a?timeout=4s&attempt_timeout=3s&connect_timeout=2s&keepalive_interval=6s\
             &keepalive_timeout=1s",
        );
        assert_eq!(options.timeout, Duration::from_secs(4));
        let Target::Etcd(etcd) = options.target else {
            panic!("it is a cluster");
        };
        let seconds = [
            etcd.call_timeout,
            etcd.attempt_timeout,
            etcd.connect_timeout,
            etcd.keepalive_interval,
            etcd.keepalive_timeout,
        ]
        .map(|duration| duration.as_secs());
        assert_eq!(seconds, [4, 3, 2, 6, 1]);
    }

    #[test]
    fn tls_is_turned_on_by_the_scheme_or_an_option() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.pem");
        std::fs::write(&file, "-----BEGIN CERTIFICATE-----\n").unwrap();
        let file = file.to_str().unwrap();
        for (address, ca, identity, name) in [
            ("https://a".to_owned(), false, false, None),
            ("https://a?tls=system".to_owned(), false, false, None),
            (
                "etcd://a?tls=system&server_name=x".to_owned(),
                false,
                false,
                Some("x"),
            ),
            (format!("a?ca={file}"), true, false, None),
            (
                format!("https://a?cert={file}&key={file}"),
                false,
                true,
                None,
            ),
        ] {
            let etcd = etcd(&address);
            assert_eq!(etcd.endpoints, ["https://a:2379"], "{address}");
            let tls = etcd.tls.unwrap();
            let found = (
                tls.ca.is_some(),
                tls.identity.is_some(),
                tls.server_name.as_deref(),
            );
            assert_eq!(found, (ca, identity, name), "{address}");
        }
    }

    #[test]
    fn the_builder_turns_tls_on_for_every_member() {
        let options = ConnectOptions::hosts(["a", "::1", "b:1"], 99).unwrap();
        let options = options
            .tls(Tls::default())
            .user("u", "p")
            .timeout(Duration::from_secs(1));
        let Target::Etcd(etcd) = options.target else {
            panic!("it is a cluster");
        };
        assert_eq!(
            etcd.endpoints,
            ["https://a:99", "https://[::1]:99", "https://b:1"]
        );
        assert_eq!(etcd.user.unwrap().name, "u");
        assert_eq!(etcd.call_timeout, Duration::from_secs(1));
    }

    #[test]
    fn what_is_wrong_with_a_cluster_is_said() {
        for (address, hint) in [
            ("etcd://", "host \"\": a host is empty"),
            ("etcd://a,,b", "no host beside it"),
            ("a,", "no host beside it"),
            (",a", "no host beside it"),
            (":2379", "host \":2379\": a host is empty"),
            ("a:", "\"a:\": a port is a number from 1 to 65535"),
            ("a:0", "a port is a number"),
            ("a:65536", "a port is a number"),
            ("a:+80", "a port is a number"),
            ("a:b", "a port is a number"),
            ("::1", "brackets"),
            ("[::1", "a [ has no ]"),
            ("[::x]", "[::1]:2379"),
            ("[::1]2379", "a port is a number"),
            ("a b!c", "letters, digits"),
            ("b\u{fc}cher", "letters, digits"),
            ("ftp://a", "etcd://, http:// and https://"),
            ("http://a,https://b", "the scheme of the first"),
            ("a,http://b", "the scheme of the first"),
            ("a/x,b", "the namespace stands once, after the last host"),
            ("a/x?namespace=y", "drop one"),
            ("a/%", "%25"),
            ("u@a", "user:password@"),
            (":p@a", "the user before @ is empty"),
            ("a,u:p@b", "before the first host"),
            ("u:p/q@a", "percent-encode"),
            ("u:p@q@a", "%40"),
            ("u:%ff@a", "the password is no UTF-8"),
            ("a?user=u", "needs option password"),
            ("a?password=p", "needs option user"),
            ("a?user=&password=p", "option user is empty"),
            ("u:p@a?user=u&password=p", "drop one"),
            ("a?tls=on", "option tls is system or off"),
            ("a?tls=off&server_name=x", "drop one"),
            ("a?tls=system&ca=x", "drop one"),
            ("https://a?tls=off", "contradicts"),
            ("http://a?tls=system", "without TLS"),
            ("http://a?server_name=x", "without TLS"),
            ("a?server_name=", "leave it out"),
            ("a?cert=x", "go together"),
            (
                "a?ca=/nowhere/ca.pem",
                "option ca: cannot read /nowhere/ca.pem",
            ),
            ("a?ca=/dev/zero", "no PEM file"),
            ("a?keepalive_interval=4s", "5s or more"),
            ("a?connect_timeout=0", "is zero"),
        ] {
            let message = refusal(address);
            assert!(message.contains(hint), "{address}: {message}");
        }
    }

    #[test]
    fn a_socket_is_named_by_its_path() {
        for (address, endpoint) in [
            ("unix:/run/etcd", "unix:///run/etcd"),
            ("UNIX:///run/etcd", "unix:///run/etcd"),
            ("unix:/a%20b%2Cc%3Fd?ttl=3s", "unix:///a b,c?d"),
        ] {
            assert_eq!(etcd(address).endpoints, [endpoint], "{address}");
        }
        let options = parse("unix:/run/etcd?namespace=n&user=u&password=p&attempt_timeout=2s");
        assert_eq!(options.namespace, "n/");
        let Target::Etcd(etcd) = options.target else {
            panic!("it is served by etcd");
        };
        assert_eq!(etcd.user.unwrap().name, "u");
        assert_eq!(etcd.attempt_timeout, Duration::from_secs(2));
    }

    #[test]
    fn a_local_server_is_named_by_its_name() {
        for (address, endpoint) in [
            ("local:", "local:"),
            (" Local:ci-7.a_b ", "local:ci-7.a_b"),
            ("local:2379", "local:2379"),
            ("local:a%2Db?namespace=n", "local:a-b"),
        ] {
            assert_eq!(etcd(address).endpoints, [endpoint], "{address}");
        }
        assert_eq!(
            etcd("local:?connect_timeout=2s").connect_timeout,
            Duration::from_secs(2)
        );
        assert_eq!(etcd("etcd://local").endpoints, ["http://local:2379"]);
    }

    #[test]
    fn what_is_wrong_with_a_server_on_this_machine_is_said() {
        let long = format!("unix:/{}", "a".repeat(120));
        for (address, hint) in [
            ("unix:", "names no socket"),
            ("unix:///", "names no socket"),
            ("unix://host/a", "a host has no place in it"),
            ("unix:/a,unix:/b", "takes one path"),
            ("unix:/a%00", "zero byte"),
            ("unix:/a%ff", "UTF-8"),
            (&*long, "longer than"),
            ("unix:/a?tls=system", "option tls is for hosts"),
            ("unix:/a?ca=/x", "option ca is for hosts"),
            ("unix:/a?user=u", "needs option password"),
            ("unix:/a?keepalive_interval=4s", "5s or more"),
            ("local", "etcd://local"),
            ("local://", "without slashes"),
            ("local:a/b", "local:NAME?namespace=..."),
            ("local:..", "begins with no dot"),
            ("local:a%2Fb", "letters, digits"),
            ("local:a,b", "letters, digits"),
            ("local:?key=x", "option key is for hosts"),
        ] {
            let message = refusal(address);
            assert!(message.contains(hint), "{address}: {message}");
        }
    }

    #[test]
    fn hosts_are_checked() {
        assert!(ConnectOptions::hosts([""; 0], 2379).is_err());
        assert!(ConnectOptions::hosts(["a"], 0).is_err());
        assert!(ConnectOptions::hosts(["a/b"], 1).is_err());
        assert!(ConnectOptions::hosts([""], 1).is_err());
    }
}
