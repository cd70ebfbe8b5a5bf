//! `mote list`: own instances, what they do and when they expire. Renews nothing.

use crate::commands::Context;
use crate::error::Error;
use crate::exit_code::ExitStatus;
use crate::json::Instance;
use crate::table;
use motefarm_proto::mote;
use serde::Serialize;

#[derive(Serialize)]
struct Body {
    instances: Vec<Instance>,
}

pub(crate) async fn act(context: &Context, all_users: bool) -> Result<ExitStatus, Error> {
    let farm = context.connect().await?;
    let request = mote::ListInstancesRequest { all_users };
    let answer = farm.call("list the instances", async |mut c| c.list_instances(request).await).await?;
    let body = Body { instances: answer.instances.into_iter().map(Instance::from).collect() };
    context.printer.data(&body, || text(&body.instances))?;
    Ok(ExitStatus::Success)
}

/// Empty when there is nothing.
fn text(instances: &[Instance]) -> String {
    if instances.is_empty() {
        return String::new();
    }
    let row = |i: &Instance| {
        let running = if i.running_execs == 0 { "-".to_owned() } else { i.running_execs.to_string() };
        [i.name.clone(), i.host_type.clone(), i.state.clone(), running, i.expiry()]
    };
    let rows: Vec<_> = instances.iter().map(row).collect();
    table::render(["NAME", "HOST TYPE", "STATE", "RUNNING", "EXPIRY"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_long_it_has_by_the_farms_clock() {
        let info = mote::InstanceInfo {
            name: "alice-linux-amd64-0".into(),
            host_type: "linux-amd64".into(),
            state: "ready".into(),
            expires_at_ms: 1_000_000 + 1_799_500,
            now_ms: 1_000_000,
            running_execs: 2,
            ..Default::default()
        };
        let shown = text(&[info.into()]);
        let line = shown.lines().nth(1).unwrap();
        assert_eq!(line, "alice-linux-amd64-0  linux-amd64  ready  2        expires in 29m59s");
        assert_eq!(text(&[]), "");
    }
}
