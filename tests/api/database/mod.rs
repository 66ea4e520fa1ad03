//! A database of the operator's own: encrypted, with a role that may do little, and shared with others.

mod limits;
mod roles;
mod tls;
