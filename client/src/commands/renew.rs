//! `mote renew`: leases from now on, without a word to the machines.

use crate::broadcast;
use crate::commands::Context;
use crate::error::Error;
use crate::exit_code::ExitStatus;
use crate::json::Instance;
use motefarm_proto::mote;
use serde::Serialize;

const SHAPE: &str = "mote renew INSTANCE...";

#[derive(Serialize)]
struct Renewed {
    expires_at_ms: i64,
    now_ms: i64,
}

pub(crate) async fn act(context: &Context, instances: Vec<String>) -> Result<ExitStatus, Error> {
    let farm = context.connect().await?;
    let instances = context.resolver(&farm, SHAPE).all(instances).await?.instances;
    let renew = async |instance: &str| {
        let request = mote::RenewInstanceRequest { instance: instance.to_owned() };
        let doing = format!("renew {instance}");
        let answer = farm.call(&doing, async |mut c| c.renew_instance(request.clone()).await).await?;
        let info = answer.instance.ok_or_else(|| Error::protocol(&doing, "it does not tell of the instance"))?;
        let renewed = Renewed { expires_at_ms: info.expires_at_ms, now_ms: info.now_ms };
        context.printer.message(format_args!("{instance}: renewed, {}", Instance::from(info).expiry()));
        Ok(renewed)
    };
    broadcast::conclude(context.printer, broadcast::each(&instances, renew).await)
}
