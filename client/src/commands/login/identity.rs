//! Whether the farm that answers is the one that is meant.

use crate::connection::{reach, trust};
use crate::error::{Error, io_words};
use crate::printer::Printer;
use crate::terminal;
use motefarm_net::tls::{self, TlsError};
use std::io;

/// What is known of it before.
pub(super) enum Pin {
    /// The hash of its CA.
    Fingerprint(String),
    /// Its CA, from a file.
    Ca(String),
    /// The CA of the profile it has already; may be empty.
    Known(String),
    /// Nothing.
    Nothing,
}

/// A fingerprint as people write it: with colons, blanks or capitals.
pub(super) fn fingerprint(text: &str) -> Result<String, Error> {
    let plain: String = text.chars().filter(|c| !matches!(c, ':' | ' ')).collect::<String>().to_lowercase();
    let plain = plain.strip_prefix("sha256").unwrap_or(&plain).to_owned();
    if plain.len() == 64 && plain.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(plain);
    }
    Err(Error::usage(
        "this is no fingerprint: it has 64 hex digits (SHA-256)",
        "`mote-coordinator admin fingerprint` prints it",
    ))
}

/// The fingerprint of the CA that was found; `None` if the system vouches.
pub(super) fn fingerprint_of(ca_pem: &str) -> Option<String> {
    tls::ca_hash(ca_pem).ok()
}

/// The CA to keep for `server`; empty if this system trusts its certificate anyway.
pub(super) async fn find(printer: Printer, server: &str, pin: Pin) -> Result<String, Error> {
    let ca_pem = match pin {
        Pin::Ca(ca_pem) | Pin::Known(ca_pem) => ca_pem,
        Pin::Fingerprint(expected) => {
            let ca_pem = shown(server).await?;
            let found = hash(&ca_pem)?;
            if found != expected {
                return Err(Error::Settings {
                    problem: format!("{server} is another farm: its fingerprint is {found}"),
                    next: "check the address and the fingerprint; nothing was sent there".to_owned(),
                });
            }
            ca_pem
        }
        Pin::Nothing => match trust("") {
            Ok(system) => match reach(server, system).await {
                Ok(_) => String::new(),
                Err(Error::Certificate { .. }) => asked(printer, server).await?,
                Err(error) => return Err(error),
            },
            Err(_) => asked(printer, server).await?,
        },
    };
    // What is kept works.
    reach(server, trust(&ca_pem)?).await?;
    Ok(ca_pem)
}

/// Trust on first use, by a person who compares.
async fn asked(printer: Printer, server: &str) -> Result<String, Error> {
    let ca_pem = shown(server).await?;
    let fingerprint = hash(&ca_pem)?;
    if !terminal::is_there() {
        return Err(Error::usage(
            format!("{server} is not known here; the fingerprint of its authority is {fingerprint}"),
            format!("if that is what its admin sees: mote login --server {server} --ca-fingerprint {fingerprint}"),
        ));
    }
    printer.warning(format_args!(
        "{server} is not known here. The fingerprint of its certificate authority is\n    {}\n\
         Its admin sees the same with `mote-coordinator admin fingerprint`.",
        grouped(&fingerprint)
    ));
    match terminal::ask("Is it the same? [y/N]")?.as_str() {
        "y" | "Y" | "yes" => Ok(ca_pem),
        _ => Err(Error::Settings {
            problem: format!("{server} was not trusted"),
            next: "nothing was sent there and nothing kept".to_owned(),
        }),
    }
}

async fn shown(server: &str) -> Result<String, Error> {
    tls::presented_ca(server).await.map_err(|error| match error {
        TlsError::Dial(error) => match tls::PeerProblem::of(&error.cause) {
            Some(problem) => Error::Certificate { address: server.to_owned(), problem },
            None => Error::Unreachable {
                address: server.to_owned(),
                cause: io_words(&error.cause),
                refused: error.cause.kind() == io::ErrorKind::ConnectionRefused,
            },
        },
        other => Error::Settings {
            problem: other.to_string(),
            next: "name its CA certificate: mote login --ca FILE".to_owned(),
        },
    })
}

fn hash(ca_pem: &str) -> Result<String, Error> {
    tls::ca_hash(ca_pem).map_err(|e| Error::protocol("read the farm's certificate", e))
}

/// In groups of four, for the eye.
fn grouped(fingerprint: &str) -> String {
    let groups: Vec<&str> =
        fingerprint.as_bytes().chunks(4).map(|four| std::str::from_utf8(four).unwrap_or_default()).collect();
    groups.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_read_as_people_write_them() {
        let plain = "0123456789abcdef".repeat(4);
        for written in [plain.clone(), plain.to_uppercase(), grouped(&plain), format!("SHA256:{plain}")] {
            assert_eq!(fingerprint(&written).unwrap(), plain);
        }
        for wrong in ["", "abc", &"g".repeat(64), &plain[1..]] {
            assert!(fingerprint(wrong).is_err(), "{wrong}");
        }
    }
}
