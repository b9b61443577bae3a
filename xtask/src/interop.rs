//! Clients of others, which must see of our server what they see of a real etcd.
//!
//! Each is a package outside the workspace, in `interop/`. It asks a fresh store, and prints the answers;
//! what it prints of the two servers is compared.

use std::process::{Command, Stdio};

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
