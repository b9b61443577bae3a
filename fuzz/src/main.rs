//! libFuzzer's program for the target that the environment names; built without coverage, it repeats
//! inputs: `cargo run -p fuzz -- TARGET FILE...`.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
mod fuzzer {
    use std::sync::LazyLock;

    use libfuzzer_sys::fuzz_target;

    static TARGET: LazyLock<fuzz::Target> = LazyLock::new(|| {
        let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
        fuzz::target(&name).expect("FUZZ_TARGET names a target")
    });

    fuzz_target!(|input: &[u8]| TARGET(input));
}

#[cfg(not(fuzzing))]
fn main() -> std::process::ExitCode {
    let mut words = std::env::args_os().skip(1);
    let name = words.next().unwrap_or_default();
    let Some(target) = name.to_str().and_then(fuzz::target) else {
        let names: Vec<_> = fuzz::TARGETS.iter().map(|(name, _)| *name).collect();
        eprintln!("usage: fuzz {} FILE...", names.join("|"));
        return std::process::ExitCode::from(2);
    };
    for path in words {
        match std::fs::read(&path) {
            Ok(input) => target(&input),
            Err(error) => {
                eprintln!("{}: {error}", path.display());
                return std::process::ExitCode::FAILURE;
            }
        }
    }
    std::process::ExitCode::SUCCESS
}
