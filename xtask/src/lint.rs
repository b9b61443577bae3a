//! Everything that is checked without running the code.

use crate::{
    generate::generate,
    run::{cargo, output, run},
};

/// The features of the library, each of which must build alone.
const FEATURES: [&str; 5] = ["etcd", "raw", "serde", "testing", "mutants"];

/// Checks format, lints, docs and generated code.
pub(crate) fn run_all() -> Result<(), String> {
    run(cargo().args(["fmt", "--all", "--check"]))?;
    run(cargo()
        .args(["clippy", "--workspace", "--all-targets", "--all-features"])
        .args(["--", "-D", "warnings"]))?;
    for feature in FEATURES {
        let alone = ["--no-default-features", "--features", feature];
        run(cargo()
            .args(["clippy", "-p", "quorate", "--lib"])
            .args(alone)
            .args(["--", "-D", "warnings"]))?;
    }
    without_etcd_no_grpc()?;
    run(cargo()
        .args(["doc", "--workspace", "--all-features", "--no-deps"])
        .env("RUSTDOCFLAGS", "-D warnings"))?;
    generate(&["--check"])
}

/// Without feature `etcd` the library brings no gRPC along.
fn without_etcd_no_grpc() -> Result<(), String> {
    let mut tree = cargo();
    tree.args([
        "tree",
        "-p",
        "quorate",
        "--no-default-features",
        "-e",
        "normal",
        "--prefix",
        "none",
    ]);
    let unwanted = output(&mut tree)?
        .lines()
        .find(|line| {
            ["tonic ", "hyper ", "prost "]
                .iter()
                .any(|name| line.starts_with(name))
        })
        .map(str::to_owned);
    match unwanted {
        Some(line) => Err(format!(
            "without feature `etcd` the library still depends on {line}"
        )),
        None => Ok(()),
    }
}
