//! Clients of others, which must see of our server what they see of a real etcd.
//!
//! Each is a package outside the workspace, in `interop/`. It asks a fresh store, and prints the answers;
//! what it prints of the two servers is compared.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use crate::{
    etcd::Etcd,
    run::{cargo, root, run, target},
    serve::{self, Served},
    shared::Shared,
    tools::{install, locate},
};

const NO_PROTOC: &str = "there is no protoc here, which the client `etcd-client` is built with";
const HOW_PROTOC: &str = "\
put protoc on the PATH, or set PROTOC to it; it comes from the package protobuf-compiler of Debian and \
Ubuntu, or from https://github.com/protocolbuffers/protobuf/releases";

/// Where Debian and Ubuntu put the sources of etcd's client.
const GOPATH: &str = "/usr/share/gocode";
const NO_GO: &str = "there is no Go here, or not the sources of etcd's client";
const HOW_GO: &str =
    "they come from the packages golang-go and golang-etcd-server-dev of Debian and Ubuntu";

/// Compares our server with a real etcd by clients in all languages. Some are fetched from the network.
pub(crate) fn all() -> Result<(), String> {
    let etcd = Etcd::find()?;
    rust(&etcd)?;
    go(&etcd)?;
    python(&etcd)?;
    node(&etcd)
}

/// Compares our server with `etcd` by the crate `etcd-client`.
pub(crate) fn rust(etcd: &Etcd) -> Result<(), String> {
    let protoc = match locate("PROTOC", "protoc") {
        Some(protoc) => protoc,
        None => {
            install(&["protobuf-compiler"], NO_PROTOC, HOW_PROTOC)?;
            locate("PROTOC", "protoc")
                .ok_or_else(|| format!("protoc was installed but not found; {HOW_PROTOC}"))?
        }
    };
    // Beside the workspace's own files, whose dependencies have other features.
    let built = target().join("interop");
    run(cargo()
        .args(["build", "--locked"])
        .current_dir(root().join("interop/etcd-client"))
        .env("PROTOC", protoc)
        .env("CARGO_TARGET_DIR", &built))?;
    let program = built.join("debug/interop-etcd-client");
    compare(etcd, &|| Command::new(&program))
}

/// By etcd's own client, from Debian's sources.
fn go(etcd: &Etcd) -> Result<(), String> {
    let sources = Path::new(GOPATH).join("src/go.etcd.io/etcd/clientv3");
    if locate("GO_BIN", "go").is_none() || !sources.exists() {
        install(&["golang-go", "golang-etcd-server-dev"], NO_GO, HOW_GO)?;
    }
    let go = locate("GO_BIN", "go").ok_or(HOW_GO)?;
    let program = target().join("interop-go");
    run(Command::new(go)
        .args(["build", "-o"])
        .arg(&program)
        .arg("main.go")
        .current_dir(root().join("interop/go"))
        .env("GO111MODULE", "off")
        .env("GOPATH", GOPATH))?;
    compare(etcd, &|| Command::new(&program))
}

/// By `aetcd` over gRPC, and by `etcd3gw` over JSON.
fn python(etcd: &Etcd) -> Result<(), String> {
    let sources = root().join("interop/python");
    let environment = target().join("interop-python");
    run(Command::new("python3")
        .args(["-m", "venv"])
        .arg(&environment))?;
    let python = environment.join("bin/python");
    run(Command::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--requirement"])
        .arg(sources.join("requirements.txt")))?;
    for program in ["grpc_client.py", "gateway_client.py"] {
        compare(etcd, &|| {
            let mut client = Command::new(&python);
            client.arg(sources.join(program));
            client
        })?;
    }
    Ok(())
}

/// By `etcd3` of npm.
fn node(etcd: &Etcd) -> Result<(), String> {
    let sources = root().join("interop/node");
    let place = target().join("interop-node");
    let cannot = |error| format!("{}: {error}", place.display());
    fs::create_dir_all(&place).map_err(cannot)?;
    for file in ["package.json", "package-lock.json"] {
        fs::copy(sources.join(file), place.join(file)).map_err(cannot)?;
    }
    let npm = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"];
    run(Command::new("npm").args(npm).current_dir(&place))?;
    compare(etcd, &|| {
        let mut client = Command::new("node");
        client
            .arg(sources.join("main.js"))
            .env("NODE_PATH", place.join("node_modules"));
        client
    })
}

/// Runs a client against both servers, and fails unless it prints the same.
fn compare(etcd: &Etcd, client: &dyn Fn() -> Command) -> Result<(), String> {
    let (major, minor) = etcd.version;
    let version = format!("{major}.{minor}");
    let ask = |endpoint: &str| -> Result<(String, bool), String> {
        let mut client = client();
        client.args([endpoint, &version]).stderr(Stdio::inherit());
        let done = client
            .output()
            .map_err(|error| format!("{client:?}: {error}"))?;
        let printed = String::from_utf8_lossy(&done.stdout).into_owned();
        Ok((printed, done.status.success()))
    };
    let real = Shared::start(&etcd.server)?;
    let (expected, succeeds) = ask(&real.endpoint)?;
    drop(real);
    if !succeeds {
        return Err(format!(
            "the client fails against etcd {version}:\n{expected}"
        ));
    }
    let ours = Served::start(&serve::build()?)?;
    let (found, succeeds) = ask(&ours.endpoint)?;
    match first_difference(&expected, &found) {
        Some(difference) => Err(format!(
            "our server is not like etcd {version}: {difference}"
        )),
        None if !succeeds => Err("the client fails against our server alone".to_owned()),
        None => Ok(()),
    }
}

fn first_difference(expected: &str, found: &str) -> Option<String> {
    let (mut expected, mut found) = (expected.lines(), found.lines());
    for number in 1.. {
        let (real, ours) = (expected.next(), found.next());
        if real != ours {
            let shown = |line: Option<&str>| line.unwrap_or("nothing").to_owned();
            return Some(format!(
                "line {number}\netcd: {}\nours: {}",
                shown(real),
                shown(ours)
            ));
        }
        if real.is_none() {
            break;
        }
    }
    None
}
