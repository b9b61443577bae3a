//! Every input that fuzzing found of use, tried again.

use std::{fs, path::Path};

/// Declares a test for each target.
macro_rules! corpora {
    ($($target:ident)*) => {
        const TESTED: &[&str] = &[$(stringify!($target)),*];
        $(
            #[test]
            fn $target() {
                let name = stringify!($target);
                let target = fuzz::target(name).expect("a target of that name");
                let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
                let mut paths: Vec<_> = fs::read_dir(&corpus)
                    .expect("a corpus")
                    .map(|entry| entry.expect("an input").path())
                    .collect();
                paths.sort();
                assert!(!paths.is_empty());
                for path in paths {
                    // Shown if it fails.
                    println!("{}", path.display());
                    target(&fs::read(&path).expect("an input"));
                }
            }
        )*
    };
}

corpora! {
    authority
    c_api
    command_line
    connection
    documents
    hostile
    json
    keys
    requests
    url
}

#[test]
fn every_target_is_tested() {
    let targets: Vec<_> = fuzz::TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(targets, TESTED);
}
