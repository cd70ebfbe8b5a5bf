//! `mote reapi`: the farm as a backend of the Remote Execution API.

mod bazelrc;
mod exec;
mod reach;

use crate::cli::{Reapi, ReapiVerb};
use crate::commands::Context;
use crate::error::Error;
use crate::exit_code::ExitStatus;
use serde::Serialize;

#[derive(Serialize)]
struct Url<'a> {
    url: &'a str,
    /// Whether a client needs the farm's certificate authority and a token.
    tls: bool,
}

pub(crate) async fn act(context: &Context, reapi: Reapi) -> Result<ExitStatus, Error> {
    match reapi.verb {
        ReapiVerb::Url(flags) => {
            let reach = reach::find(context, &flags).await?;
            let url = reach.url();
            context.printer.data(&Url { url: &url, tls: reach.tls.is_some() }, || url.clone())?;
        }
        ReapiVerb::Bazelrc { reach, file } => bazelrc::act(context, &reach, file.as_deref()).await?,
        ReapiVerb::Exec(flags) => return exec::act(context, flags).await,
    }
    Ok(ExitStatus::Success)
}
