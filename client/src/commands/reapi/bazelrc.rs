//! `mote reapi bazelrc`: the farm as Bazel's flags.

use super::reach::{self, Reach};
use crate::cli::Reach as Flags;
use crate::commands::Context;
use crate::error::Error;
use motefarm_net::private_file;
use serde::Serialize;
use std::path::Path;

#[derive(Serialize)]
struct Written<'a> {
    url: &'a str,
    /// Without what is secret.
    flags: Vec<&'a str>,
    /// Empty: they went to stdout.
    file: String,
}

pub(super) async fn act(context: &Context, flags: &Flags, file: Option<&Path>) -> Result<(), Error> {
    let reach = reach::find(context, flags).await?;
    let all = flags_of(&reach);
    let text = bazelrc(&all);
    let url = reach.url();
    let body = Written {
        url: &url,
        flags: all.iter().filter(|flag| !flag.is_secret).map(|flag| flag.text.as_str()).collect(),
        file: file.map(|file| file.display().to_string()).unwrap_or_default(),
    };
    match file {
        Some(file) => {
            private_file::write(file, text.as_bytes()).map_err(|cause| Error::file("write", file, cause))?;
            context.printer.message(format_args!("wrote {}; use it as `bazel --bazelrc=FILE`", file.display()));
            context.printer.data(&body, String::new)
        }
        None if all.iter().any(|flag| flag.is_secret) && !context.printer.is_json() => Err(Error::usage(
            "these flags hold your token, which is not printed",
            "name a file that they are written to, readable by you alone: mote reapi bazelrc FILE",
        )),
        None => context.printer.data(&body, || text.trim_end().to_owned()),
    }
}

struct Flag {
    text: String,
    is_secret: bool,
}

fn flags_of(reach: &Reach) -> Vec<Flag> {
    let plain = |text: String| Flag { text, is_secret: false };
    let mut flags = vec![plain(format!("--remote_executor={}", reach.url()))];
    if let Some(tls) = &reach.tls {
        flags.extend(tls.ca_file.iter().map(|file| plain(format!("--tls_certificate={}", file.display()))));
        let text = format!("--remote_header=authorization=Bearer {}", tls.token);
        flags.push(Flag { text, is_secret: true });
    }
    flags
}

/// Quoted, because a header has a blank in it and a path may.
fn bazelrc(flags: &[Flag]) -> String {
    let line = |flag: &Flag| format!("build \"{}\"\n", flag.text.replace('\\', "\\\\").replace('"', "\\\""));
    flags.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::reapi::reach::Tls;

    fn text(tls: Option<Tls>) -> String {
        bazelrc(&flags_of(&Reach { address: "127.0.0.1:8119".to_owned(), tls }))
    }

    #[test]
    fn the_farms_own_user_needs_an_address_only() {
        assert_eq!(text(None), "build \"--remote_executor=grpc://127.0.0.1:8119\"\n");
    }

    #[test]
    fn others_need_authority_and_token() {
        let tls = Tls { ca_file: Some("/home/a b/ca.pem".into()), token: "mote_1".to_owned() };
        let expected = "build \"--remote_executor=grpcs://127.0.0.1:8119\"\n\
                        build \"--tls_certificate=/home/a b/ca.pem\"\n\
                        build \"--remote_header=authorization=Bearer mote_1\"\n";
        assert_eq!(text(Some(tls)), expected);
    }
}
