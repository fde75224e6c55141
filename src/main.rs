//! The `tokenbus` program.
fn main() {}
