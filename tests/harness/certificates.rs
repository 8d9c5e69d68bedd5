//! A certificate authority, made with openssl for one test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::process;

const CONFIG: &str = "\
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = DNS:localhost,IP:127.0.0.1
[elsewhere]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = DNS:elsewhere.example
[made]
database = index.txt
new_certs_dir = .
serial = serial.txt
policy = any
[any]
commonName = supplied
[client]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = clientAuth
";

/// An authority and what it has signed, in a folder.
pub struct Certificates {
    folder: TempDir,
}

/// A certificate and its key, both PEM (PKCS #8).
#[derive(Debug, Clone)]
pub struct Identity {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Certificates {
    /// A new authority that nobody else trusts.
    pub fn new() -> Self {
        let folder = process::scratch("certificates");
        fs::write(folder.path().join("openssl.cnf"), CONFIG).expect("write");
        let this = Self { folder };
        this.make("ca", "/CN=Test authority", "authority", false);
        this
    }

    /// The authority's certificate.
    pub fn ca(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// For a server on localhost and 127.0.0.1.
    pub fn server(&self) -> Identity {
        self.identity("server", "/CN=localhost", "server")
    }

    /// As [`Certificates::server`], but it ended years ago.
    pub fn ended(&self) -> Identity {
        let ended = Identity { certificate: self.path("ended.pem"), key: self.path("ended.key") };
        let mut command = self.openssl(&["req", "-new", "-batch", "-nodes", "-newkey", "ec", "-config", "openssl.cnf"]);
        command.args(["-pkeyopt", "ec_paramgen_curve:P-256", "-subj", "/CN=localhost"]);
        process::run(command.args(["-keyout", "ended.key", "-out", "ended.csr"]));
        fs::write(self.path("index.txt"), "").expect("write");
        fs::write(self.path("serial.txt"), "01\n").expect("write");
        let mut command = self.openssl(&["ca", "-batch", "-notext", "-config", "openssl.cnf"]);
        command.args([
            "-name",
            "made",
            "-cert",
            "ca.pem",
            "-keyfile",
            "ca.key",
            "-md",
            "sha256",
            "-extensions",
            "server",
        ]);
        command.args(["-startdate", "20200101000000Z", "-enddate", "20210101000000Z"]);
        process::run(command.args(["-in", "ended.csr", "-out", "ended.pem"]));
        ended
    }

    fn openssl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("openssl");
        command.current_dir(self.folder.path()).args(arguments);
        command
    }

    /// For a server of another name.
    pub fn elsewhere(&self) -> Identity {
        self.identity("elsewhere", "/CN=elsewhere.example", "elsewhere")
    }

    /// For a client of this common name.
    pub fn client(&self, name: &str) -> Identity {
        self.identity(name, &format!("/CN={name}"), "client")
    }

    /// Key and certificate in one file, as Kafka's PEM key store wants them.
    pub fn bundle(&self, identity: &Identity) -> PathBuf {
        let mut bundle = fs::read(&identity.key).expect("a key");
        bundle.extend(fs::read(&identity.certificate).expect("a certificate"));
        let path = identity.certificate.with_extension("bundle.pem");
        fs::write(&path, bundle).expect("write");
        path
    }

    fn identity(&self, name: &str, subject: &str, kind: &str) -> Identity {
        let identity =
            Identity { certificate: self.path(&format!("{name}.pem")), key: self.path(&format!("{name}.key")) };
        if !identity.certificate.exists() {
            self.make(name, subject, kind, true);
        }
        identity
    }

    fn make(&self, name: &str, subject: &str, kind: &str, signed: bool) {
        let mut command = self.openssl(&["req", "-x509", "-batch", "-nodes", "-days", "20"]);
        command.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-config", "openssl.cnf"]);
        command.args(["-subj", subject, "-extensions", kind]);
        command.args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.pem")]);
        if signed {
            command.args(["-CA", "ca.pem", "-CAkey", "ca.key"]);
        }
        process::run(&mut command);
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new(self.folder.path()).join(name)
    }
}
