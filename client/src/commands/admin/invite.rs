//! `mote admin invite`: the one line that makes another machine join.

mod go_agent;

use super::{ahead, join_token};
use crate::cli::Invite;
use crate::commands::Context;
use crate::connection::{Place, is_loopback};
use crate::error::Error;
use serde::Serialize;

/// Where the line puts the token, in the folder it is pasted in.
const TOKEN_FILE: &str = "mote-join-token";

#[derive(Serialize)]
struct Body<'a> {
    line: &'a str,
    join_token_id: &'a str,
    expires_at_ms: i64,
}

pub(super) async fn act(context: &Context, invite: Invite) -> Result<(), Error> {
    const DOING: &str = "make the invitation";
    let farm = context.connect().await?;
    let made = join_token::create(&farm, &invite.terms).await?;
    let own = if made.coordinator.is_empty() { farm.address() } else { &made.coordinator };
    let coordinator = invite.coordinator.as_deref().unwrap_or(own);
    let host_type = &invite.terms.host_type;
    let line = match &context.settings.place {
        Place::Farm { ca_pem, .. } if invite.go_agent => go_agent::line(&made.token, coordinator, host_type, ca_pem),
        _ => line(&made.token, coordinator, host_type),
    };
    let line =
        line.ok_or_else(|| Error::protocol(DOING, "token or address hold characters that a shell would read"))?;
    let machines = if invite.terms.one_time { "one machine" } else { "any number of machines" };
    let printer = context.printer;
    printer.message(format_args!(
        "paste this into a shell on {machines} before it expires {}; it holds a secret",
        ahead(made.expires_at_ms)
    ));
    if is_loopback(coordinator) {
        printer.warning(format_args!(
            "{coordinator} can be reached from this machine only; serve on another address (mote-coordinator serve \
             --listen) or name one with --coordinator"
        ));
    }
    let body = Body { line: &line, join_token_id: &made.id, expires_at_ms: made.expires_at_ms };
    printer.data(&body, || line.clone())
}

/// The token goes into a file of its owner's alone (`printf` is built into the shell, so that it is
/// in no process's arguments). `None` if a word would not survive the shell unquoted.
fn line(token: &str, coordinator: &str, host_type: &str) -> Option<String> {
    [token, coordinator, host_type].iter().all(|word| is_plain(word)).then(|| {
        format!(
            "(umask 077 && printf '%s\\n' '{token}' > {TOKEN_FILE}) && mote-buildlet join --coordinator '{coordinator}' \
             --token-file {TOKEN_FILE} --host-type '{host_type}'"
        )
    })
}

/// Whether a shell takes a word for itself.
fn is_plain(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:[]".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_one_line_and_safe_to_paste() {
        let good = line("id.secret.hash", "[::1]:8119", "linux-arm64").unwrap();
        assert!(
            good.starts_with("(umask 077 && printf '%s\\n' 'id.secret.hash' > mote-join-token) && mote-buildlet join ")
        );
        assert!(good.contains("--coordinator '[::1]:8119' --token-file mote-join-token --host-type 'linux-arm64'"));
        assert!(!good.contains('\n'));
        assert_eq!(line("a'; rm -rf ~'", "a:1", "t"), None);
        assert_eq!(line("a", "a:1 $(x)", "t"), None);
    }
}
