//! Python takes a lock, loses its session, and learns of it through the library.

#![allow(clippy::unwrap_used)] // here a panic is a failed test

mod support;

use std::process::Command;

use support::{Workshop, cluster, crate_file, memory, succeed};

#[test]
fn python_learns_that_its_lock_is_lost() {
    let workshop = Workshop::open();
    for url in [memory(), cluster("python")] {
        let said = succeed(
            Command::new("timeout")
                .args(["60", "python3"])
                .arg(crate_file("tests/python/lock.py"))
                .arg(workshop.library())
                .arg(&url),
        );
        assert_eq!(said, "held\nreadable\nlost\nthe fence refuses\n");
    }
}
