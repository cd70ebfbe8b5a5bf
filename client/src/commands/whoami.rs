//! `mote whoami` and `mote auth token`: who the farm takes this program for, and why.

use super::admin::ahead;
use crate::cli::AuthVerb;
use crate::commands::Context;
use crate::connection::Place;
use crate::error::Error;
use crate::exit_code::ExitStatus;
use motefarm_proto::mote;
use serde::Serialize;

#[derive(Serialize)]
struct Body {
    user: String,
    role: String,
    server: String,
    farm_version: String,
    token_name: String,
    token_expires_at_ms: i64,
}

#[derive(Serialize)]
struct Token<'a> {
    token: &'a str,
}

pub(crate) async fn whoami(context: &Context) -> Result<ExitStatus, Error> {
    let farm = context.connect().await?;
    let answer = farm.call("ask who I am", async |mut c| c.who_am_i(mote::WhoAmIRequest {}).await).await?;
    let body = Body {
        user: answer.user,
        role: answer.role,
        server: farm.address().to_owned(),
        farm_version: answer.version,
        token_name: answer.token_name,
        token_expires_at_ms: answer.token_expires_at_ms,
    };
    context.printer.data(&body, || {
        let by = match body.token_name.as_str() {
            "" => String::new(),
            name => format!(" by the token {name:?}, which expires {}", ahead(body.token_expires_at_ms)),
        };
        format!("{} ({}) at {}{by}", body.user, body.role, body.server)
    })?;
    Ok(ExitStatus::Success)
}

/// Asks nobody: what would be used is printed.
pub(crate) fn auth(context: &Context, verb: &AuthVerb) -> Result<ExitStatus, Error> {
    let AuthVerb::Token = verb;
    let Place::Farm { token, .. } = &context.settings.place else {
        return Err(Error::usage("no farm is meant", "mote auth token --farm NAME"));
    };
    context.printer.data(&Token { token }, || token.clone())?;
    Ok(ExitStatus::Success)
}
