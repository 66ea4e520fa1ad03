//! Certificates of an authority for servers and clients of the API, and the files that a server is given.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use postroom::config::TlsFiles;
use postroom::transport::{Tls, TransportOptions};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, date_time_ymd};
use tempfile::TempDir;

pub(crate) use crate::scripted::certificates::Authority;

/// A certificate and its key.
pub(crate) struct Issued {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Authority {
    fn issue(&self, fill: impl FnOnce(&mut CertificateParams)) -> Issued {
        let names = ["localhost", "127.0.0.1"].map(str::to_owned);
        let mut params = CertificateParams::new(names).expect("names");
        fill(&mut params);
        let key = KeyPair::generate().expect("a key");
        Issued { cert: self.sign(&params, &key).pem(), key: key.serialize_pem() }
    }

    /// For a server on this machine.
    pub(crate) fn server(&self) -> Issued {
        self.issue(|_| ())
    }

    /// The same, whose time was over long ago.
    pub(crate) fn expired(&self) -> Issued {
        self.issue(|params| {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2020, 12, 31);
        })
    }

    /// For a client.
    pub(crate) fn client(&self) -> Issued {
        self.issue(|params| params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth))
    }
}

/// A folder with the files of TLS, reached as those of a mounted secret are: `tls.pem` leads to `..data/tls.pem`, and
/// `..data` to the folder that counts.
pub(crate) struct Files {
    folder: TempDir,
    client_ca: bool,
}

impl Files {
    pub(crate) fn new(issued: &Issued, client_ca: Option<&Authority>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let files = Self { folder, client_ca: client_ca.is_some() };
        for name in ["cert.pem", "key.pem", "ca.pem"] {
            symlink(PathBuf::from("..data").join(name), files.path(name)).expect("a link");
        }
        files.write(&issued.cert, &issued.key, client_ca.map(|ca| ca.pem.as_str()));
        files
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The same as text, for a command line.
    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("UTF-8").to_owned()
    }

    /// Exchanges all files at one stroke.
    pub(crate) fn write(&self, cert: &str, key: &str, client_ca: Option<&str>) {
        let version = tempfile::Builder::new().prefix("..version").tempdir_in(self.folder.path());
        let version = version.expect("a folder").keep();
        fs::write(version.join("cert.pem"), cert).expect("written");
        fs::write(version.join("key.pem"), key).expect("written");
        fs::write(version.join("ca.pem"), client_ca.unwrap_or_default()).expect("written");
        let link = self.path("..new");
        symlink(&version, &link).expect("a link");
        fs::rename(link, self.path("..data")).expect("turned");
    }

    pub(crate) fn files(&self) -> TlsFiles {
        TlsFiles {
            cert: self.path("cert.pem"),
            key: self.path("key.pem"),
            client_ca: self.client_ca.then(|| self.path("ca.pem")),
        }
    }

    /// Options of a server that uses them.
    pub(crate) fn transport(&self) -> TransportOptions {
        let tls = Tls::open(self.files()).expect("good files");
        TransportOptions { tls: Some(tls), ..TransportOptions::default() }
    }

    /// The flags of a server that uses them.
    pub(crate) fn flags(&self) -> Vec<String> {
        let mut flags = vec![
            "--tls-cert".to_owned(),
            self.text("cert.pem"),
            "--tls-key".to_owned(),
            self.text("key.pem"),
        ];
        if self.client_ca {
            flags.extend(["--tls-client-ca".to_owned(), self.text("ca.pem")]);
        }
        flags
    }
}
