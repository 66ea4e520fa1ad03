//! Letters a second over one session.
fn main() {}
