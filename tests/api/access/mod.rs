//! Keys: who may do what, how long, how often.

mod calls;
mod keys;
mod pace;
mod rights;
