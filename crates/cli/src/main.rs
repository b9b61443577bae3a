//! The command line of quorate.
fn main() {}
