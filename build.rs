//! Compiles the protos to Rust, and to the descriptor set that reflection serves. Needs no protoc.

use std::path::PathBuf;

use prost::Message;
use tonic_prost_build::Config;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=migrations");
    let files =
        ["settings", "accounts", "send", "logs"].map(|noun| format!("proto/postroom/v1/{noun}.proto"));
    let descriptors = protox::compile(files, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("postroom.bin"), descriptors.encode_to_vec())?;
    let mut config = Config::new();
    // By its name the codec knows what a message may hold.
    config.enable_type_names();
    tonic_prost_build::configure()
        // Large fields are shared with the received frame rather than copied.
        .bytes("postroom.v1.Message.raw")
        .bytes("postroom.v1.Attachment.content")
        .boxed("postroom.v1.CheckAccountRequest.target.account")
        // Their Debug is written by hand, so that no password and no code is ever printed.
        .skip_debug(["postroom.v1.PasswordAuth", "postroom.v1.ConfirmSenderRequest"])
        // What a request decodes into is counted before.
        .codec_path("crate::api::codec::Codec")
        .compile_fds_with_config(descriptors, config)?;
    Ok(())
}
