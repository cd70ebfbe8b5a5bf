//! `mote putbootstrap`: the operator's bootstrap toolchain at `go1.4`.

use crate::broadcast;
use crate::commands::Context;
use crate::connection::Farm;
use crate::error::Error;
use crate::exit_code::ExitStatus;
use crate::human;
use motefarm_proto::mote;
use serde::Serialize;
use std::time::Duration;
use tonic::Code;

const SHAPE: &str = "mote putbootstrap INSTANCE...";
/// For writing a toolchain to a slow disk.
const DEADLINE: Duration = Duration::from_secs(30 * 60);

#[derive(Serialize)]
struct Put {
    files_written: u64,
    bytes_written: u64,
    files_unchanged: u64,
}

pub(crate) async fn act(context: &Context, instances: Vec<String>) -> Result<ExitStatus, Error> {
    let farm = context.connect().await?;
    let instances = context.resolver(&farm, SHAPE).all(instances).await?.instances;
    let put = async |instance: &str| {
        let Some(result) = install(&farm, instance).await? else {
            return Err(Error::Refused {
                doing: format!("put a bootstrap toolchain on {instance}"),
                code: Code::FailedPrecondition,
                message: "the farm's operator has configured none for its host type; \
                          `mote push` brings one of yours if GOROOT_BOOTSTRAP names it"
                    .to_owned(),
            });
        };
        let written = human::count(result.files_written, "file");
        context.printer.message(format_args!("{instance}:go1.4: {written} written, the rest was there"));
        Ok(Put {
            files_written: result.files_written,
            bytes_written: result.bytes_written,
            files_unchanged: result.files_unchanged,
        })
    };
    broadcast::conclude(context.printer, broadcast::each(&instances, put).await)
}

/// `None` if the host type has none.
pub(super) async fn install(farm: &Farm, instance: &str) -> Result<Option<mote::TreeSyncResult>, Error> {
    let request = mote::InstallBootstrapRequest { instance: instance.to_owned() };
    let doing = format!("put a bootstrap toolchain on {instance}");
    let ask = async |mut c: crate::connection::Client| c.install_bootstrap(request.clone()).await;
    let answer = farm.call_within(&doing, DEADLINE, ask).await?;
    Ok(answer.configured.then(|| answer.result.unwrap_or_default()))
}
