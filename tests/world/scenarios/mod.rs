//! What the world does to the servers, one file for each event.

pub(crate) mod calls;
pub(crate) mod clock;
pub(crate) mod dead_host;
pub(crate) mod disk_full;
pub(crate) mod failover;
pub(crate) mod kills;
pub(crate) mod lost_commit;
pub(crate) mod migrations;
pub(crate) mod soak;
pub(crate) mod stop;
