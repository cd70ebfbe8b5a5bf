//! `mote list`: own instances, where they are and when they expire. Renews nothing.

use crate::cli;
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

pub(crate) async fn act(context: &Context, list: cli::List) -> Result<ExitStatus, Error> {
    let farm = context.connect().await?;
    let request = mote::ListInstancesRequest { all_users: list.all, shared: true };
    let answer = farm.call("list the instances", async |mut c| c.list_instances(request).await).await?;
    let body = Body { instances: answer.instances.into_iter().map(Instance::from).collect() };
    context.printer.data(&body, || if list.long { table(&body.instances) } else { lines(&body.instances) })?;
    Ok(ExitStatus::Success)
}

/// As gomote prints them: name and groups, type, machine, time left.
fn lines(instances: &[Instance]) -> String {
    let line = |i: &Instance| [named(i).as_str(), &i.host_type, &i.buildlet, &left(i)].join("\t");
    instances.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn named(instance: &Instance) -> String {
    match instance.groups.as_slice() {
        [] => instance.name.clone(),
        groups => format!("{} ({})", instance.name, groups.join(", ")),
    }
}

/// What is left, or why that is no question.
fn left(instance: &Instance) -> String {
    match (instance.exact_expiry(), instance.state.as_str()) {
        (expiry, "") => expiry,
        (expiry, "ready") if !expiry.is_empty() => expiry,
        (expiry, state) if expiry.is_empty() => state.to_owned(),
        (expiry, state) => format!("{expiry} ({state})"),
    }
}

/// Empty when there is nothing.
fn table(instances: &[Instance]) -> String {
    if instances.is_empty() {
        return String::new();
    }
    let row = |i: &Instance| {
        let running = if i.running_execs == 0 { "-".to_owned() } else { i.running_execs.to_string() };
        [named(i), i.host_type.clone(), i.state.clone(), running, i.expiry()]
    };
    let rows: Vec<_> = instances.iter().map(row).collect();
    table::render(["NAME", "HOST TYPE", "STATE", "RUNNING", "EXPIRY"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> mote::InstanceInfo {
        mote::InstanceInfo {
            name: "alice-linux-amd64-0".into(),
            host_type: "linux-amd64".into(),
            buildlet: "box".into(),
            state: "ready".into(),
            expires_at_ms: 1_000_000 + 627_300,
            now_ms: 1_000_000,
            running_execs: 2,
            ..Default::default()
        }
    }

    #[test]
    fn a_line_is_gomotes_by_the_farms_clock() {
        let grouped = mote::InstanceInfo { groups: vec!["a".into(), "b".into()], ..info() };
        let lost = mote::InstanceInfo { state: "lost".into(), ..info() };
        let queued = mote::InstanceInfo { state: "queued".into(), expires_at_ms: 0, buildlet: String::new(), ..info() };
        let shown = lines(&[info().into(), grouped.into(), lost.into(), queued.into()]);
        let expected = [
            "alice-linux-amd64-0\tlinux-amd64\tbox\texpires in 10m27.3s",
            "alice-linux-amd64-0 (a, b)\tlinux-amd64\tbox\texpires in 10m27.3s",
            "alice-linux-amd64-0\tlinux-amd64\tbox\texpires in 10m27.3s (lost)",
            "alice-linux-amd64-0\tlinux-amd64\t\tqueued",
        ];
        assert_eq!(shown.lines().collect::<Vec<_>>(), expected);
        assert_eq!(lines(&[]), "");
    }

    #[test]
    fn the_table_tells_of_states_and_commands() {
        let shown = table(&[info().into()]);
        let line = shown.lines().nth(1).unwrap();
        assert_eq!(line, "alice-linux-amd64-0  linux-amd64  ready  2        expires in 10m27s");
        assert_eq!(table(&[]), "");
    }
}
