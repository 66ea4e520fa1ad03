//! Black-box tests.

mod letters;
mod letters_compose;
