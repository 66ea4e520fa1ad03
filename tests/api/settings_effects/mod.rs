//! Settings by their effect: on every replica, under the operator's defaults, and those that no other file of tests proves.

mod defaults;
mod fields;
mod replicas;
mod restoring;

use postroom::api::proto::{GetSettingsRequest, RestoreSettingsRequest, Settings, UpdateSettingsRequest};
use prost_types::FieldMask;
use tonic::Status;

use crate::support::{Postroom, SITE, patiently};

pub(crate) fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

pub(crate) async fn current(postroom: &Postroom) -> Settings {
    let request = GetSettingsRequest { name: format!("{SITE}/settings") };
    postroom.settings().get_settings(request).await.expect("settings").into_inner().settings.expect("set")
}

pub(crate) async fn update(
    postroom: &Postroom,
    settings: Settings,
    paths: &[&str],
) -> Result<Settings, Status> {
    let paths = paths.iter().map(ToString::to_string).collect();
    let settings = Settings { name: format!("{SITE}/settings"), ..settings };
    let request = UpdateSettingsRequest { settings: Some(settings), update_mask: Some(FieldMask { paths }) };
    let updated = patiently(async || postroom.settings().update_settings(request.clone()).await).await?;
    Ok(updated.settings.expect("set"))
}

async fn restore(postroom: &Postroom, paths: &[&str]) -> Result<Settings, Status> {
    let paths = paths.iter().map(ToString::to_string).collect();
    let request = RestoreSettingsRequest { name: format!("{SITE}/settings"), paths };
    Ok(postroom.settings().restore_settings(request).await?.into_inner().settings.expect("set"))
}

fn without_version(settings: Settings) -> Settings {
    Settings { etag: String::new(), update_time: None, ..settings }
}
