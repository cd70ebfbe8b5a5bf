//! `mote ping`: is it alive, truly? One try each, through to the machine.

use crate::broadcast;
use crate::commands::Context;
use crate::error::Error;
use crate::exit_code::ExitStatus;
use crate::human;
use motefarm_proto::mote;
use serde::Serialize;

const SHAPE: &str = "mote ping INSTANCE...";

#[derive(Serialize)]
struct Body {
    instances: Vec<Pinged>,
}

#[derive(Serialize)]
struct Pinged {
    instance: String,
    alive: bool,
    round_trip_us: Option<u64>,
    expires_in_ms: Option<u64>,
    problem: Option<String>,
}

pub(crate) async fn act(context: &Context, instances: Vec<String>) -> Result<ExitStatus, Error> {
    let farm = context.connect().await?;
    let instances = context.resolver(&farm, SHAPE).all(instances).await?.instances;
    let ping = async |instance: &str| {
        let request = mote::PingInstanceRequest { instance: instance.to_owned() };
        let answer = farm.call_once("ping it", farm.client().ping_instance(request)).await;
        Ok(pinged(instance, answer))
    };
    let results = broadcast::each(&instances, ping).await;
    let pinged: Vec<Pinged> = results.into_iter().filter_map(|(_, pinged)| pinged.ok()).collect();
    for one in &pinged {
        match &one.problem {
            Some(problem) => context.printer.warning(format_args!("{}: dead: {problem}", one.instance)),
            None => context.printer.message(alive(one)),
        }
    }
    let all_alive = pinged.iter().all(|one| one.alive);
    context.printer.data(&Body { instances: pinged }, String::new)?;
    Ok(if all_alive { ExitStatus::Success } else { ExitStatus::Failed })
}

fn pinged(instance: &str, answer: Result<mote::PingInstanceResponse, Error>) -> Pinged {
    let instance = instance.to_owned();
    match answer {
        Ok(answer) => {
            let expires_in_ms = answer
                .instance
                .map(|i| u64::try_from(human::between(i.now_ms, i.expires_at_ms).as_millis()).unwrap_or(u64::MAX));
            Pinged { instance, alive: true, round_trip_us: Some(answer.round_trip_us), expires_in_ms, problem: None }
        }
        Err(error) => Pinged {
            instance,
            alive: false,
            round_trip_us: None,
            expires_in_ms: None,
            problem: Some(match error {
                Error::Refused { message, .. } => message,
                other => other.to_string(),
            }),
        },
    }
}

fn alive(one: &Pinged) -> String {
    let round_trip = one.round_trip_us.unwrap_or_default() as f64 / 1000.0;
    let left = one.expires_in_ms.map(|ms| human::duration(std::time::Duration::from_millis(ms)));
    let left = left.map(|left| format!(", expires in {left}")).unwrap_or_default();
    format!("{}: alive ({round_trip:.1} ms{left})", one.instance)
}
