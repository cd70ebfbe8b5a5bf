//! Signing in on the farm's page: the farm drives the device flow (RFC 8628) with its issuer, this
//! program shows the page and the code, and waits.

use crate::connection::{reach, trust, within};
use crate::error::Error;
use crate::printer::Printer;
use motefarm_proto::mote;
use motefarm_proto::mote::sign_in_client::SignInClient;
use std::time::Duration;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// Longest wait for one answer; the farm itself asks its issuer meanwhile.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// How often a farm that is away for a moment is asked again.
const MOST_FAILURES: u32 = 5;

async fn client(server: &str, ca_pem: &str) -> Result<SignInClient<Channel>, Error> {
    Ok(SignInClient::new(reach(server, trust(ca_pem)?).await?))
}

/// The farm's issuer, if it has one.
pub(super) async fn issuer(server: &str, ca_pem: &str) -> Result<Option<String>, Error> {
    let mut client = client(server, ca_pem).await?;
    match within(ANSWER_WITHIN, client.describe_sign_in(mote::DescribeSignInRequest {})).await {
        Ok(answer) => Ok(Some(answer.into_inner().issuer).filter(|issuer| !issuer.is_empty())),
        // A farm older than this.
        Err(status) if status.code() == Code::Unimplemented => Ok(None),
        Err(status) => Err(Error::refused("ask how to sign in", &status)),
    }
}

/// A token, once the user has agreed on the page.
pub(super) async fn sign_in(printer: Printer, server: &str, ca_pem: &str, issuer: &str) -> Result<String, Error> {
    const DOING: &str = "sign in";
    let mut client = client(server, ca_pem).await?;
    let begin = mote::BeginSignInRequest { device: device_name() };
    let begun = within(ANSWER_WITHIN, client.begin_sign_in(begin)).await;
    let begun = begun.map_err(|status| Error::refused(DOING, &status))?.into_inner();
    let page = match begun.verification_uri_complete.as_str() {
        "" => &begun.verification_uri,
        complete => complete,
    };
    printer.warning(format_args!("open {page}\nand agree there, if it shows the code {}", begun.user_code));
    printer.message(format_args!("waiting for {issuer} ..."));
    let waiting = poll(&mut client, &begun.sign_in_id, Duration::from_millis(begun.interval_ms));
    match tokio::time::timeout(Duration::from_millis(begun.expires_in_ms), waiting).await {
        Ok(Ok(answer)) => {
            let MadeToken { token, name } = answer;
            printer.message(format_args!("the farm made the token {name:?}"));
            Ok(token)
        }
        Ok(Err(status)) if status.code() == Code::PermissionDenied => Err(Error::Settings {
            problem: format!("could not {DOING}: {}", status.message()),
            next: "sign in as somebody else, or ask the farm's admin".to_owned(),
        }),
        Ok(Err(status)) => Err(Error::refused(DOING, &status)),
        Err(_) => Err(Error::Settings {
            problem: "nobody agreed on the page in time".to_owned(),
            next: "run the same command again".to_owned(),
        }),
    }
}

struct MadeToken {
    token: String,
    name: String,
}

async fn poll(
    client: &mut SignInClient<Channel>,
    sign_in_id: &str,
    mut interval: Duration,
) -> Result<MadeToken, Status> {
    let mut failures = 0;
    loop {
        tokio::time::sleep(interval.clamp(Duration::from_millis(200), Duration::from_secs(60))).await;
        let request = mote::PollSignInRequest { sign_in_id: sign_in_id.to_owned() };
        match within(ANSWER_WITHIN, client.poll_sign_in(request)).await {
            Ok(answer) => {
                let answer = answer.into_inner();
                if !answer.token.is_empty() {
                    return Ok(MadeToken { token: answer.token, name: answer.token_name });
                }
                (interval, failures) = (Duration::from_millis(answer.interval_ms), 0);
            }
            Err(status) if status.code() == Code::Unavailable && failures < MOST_FAILURES => failures += 1,
            Err(status) => return Err(status),
        }
    }
}

/// What the token is to be called: this machine, as far as that is plain text.
fn device_name() -> String {
    #[cfg(unix)]
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    #[cfg(not(unix))]
    let name = std::env::var("COMPUTERNAME").unwrap_or_default();
    name.chars().filter(|c| c.is_ascii_alphanumeric() || "-._".contains(*c)).take(40).collect()
}
