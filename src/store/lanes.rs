//! placeholder until merged
use super::{Store, StoreError};
use crate::domain::site::SiteId;
/// x
pub async fn resume_after_check(_store: &Store, _site: &SiteId, _account: i64) -> Result<(), StoreError> {
    Ok(())
}
