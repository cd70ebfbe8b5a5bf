//! `mote destroy`: end instances. Answers once that is decided; the wiping goes on behind it.

use crate::commands::{Context, each};
use crate::error::Error;
use crate::exit_code::ExitStatus;
use motefarm_proto::mote;
use serde::Serialize;

#[derive(Serialize)]
struct Body {
    destroyed: Vec<String>,
}

pub(crate) async fn act(context: &Context, instances: Vec<String>) -> Result<ExitStatus, Error> {
    let farm = context.connect().await?;
    let destroy = async |instance: &str| {
        let request = mote::DestroyInstanceRequest { instance: instance.to_owned() };
        farm.call(&format!("destroy {instance}"), async |mut c| c.destroy_instance(request.clone()).await).await?;
        context.printer.message(format_args!("destroyed {instance}"));
        Ok(())
    };
    let (done, failure) = match each(context.printer, instances, destroy).await {
        Ok(done) => (done, None),
        Err((done, error)) => (done, Some(error)),
    };
    if failure.is_none() {
        let body = Body { destroyed: done.into_iter().map(|(name, ())| name).collect() };
        context.printer.data(&body, String::new)?;
    }
    failure.map_or(Ok(ExitStatus::Success), Err)
}
