//! The `ActionResult` of an action whose command has ended.

use motefarm_core::Timestamp;
use motefarm_proto::reapi::{ActionResult, ExecutedActionMetadata, protobuf};

/// When it was what. A moment that has not come is the last one that has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// The slot was taken.
    pub(super) accepted: Timestamp,
    /// The inputs were complete in the store.
    pub(super) fetched: Timestamp,
    /// They were in place, and the command was started.
    pub(super) started: Timestamp,
    pub(super) ended: Timestamp,
    /// The outputs were handed over.
    pub(super) handed_over: Timestamp,
}

/// Fills in who did it and when.
pub(super) fn stamp(result: &mut ActionResult, worker: &str, times: &Times) {
    let at = |time: Timestamp| Some(wire_time(time));
    let ran = times.ended.since(times.started);
    result.execution_metadata = Some(ExecutedActionMetadata {
        worker: worker.to_owned(),
        worker_start_timestamp: at(times.accepted),
        worker_completed_timestamp: at(times.handed_over),
        input_fetch_start_timestamp: at(times.accepted),
        input_fetch_completed_timestamp: at(times.started),
        execution_start_timestamp: at(times.started),
        execution_completed_timestamp: at(times.ended),
        virtual_execution_duration: Some(protobuf::Duration {
            seconds: i64::try_from(ran.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(ran.subsec_nanos()).unwrap_or(0),
        }),
        output_upload_start_timestamp: at(times.ended),
        output_upload_completed_timestamp: at(times.handed_over),
        ..Default::default()
    });
}

fn wire_time(time: Timestamp) -> protobuf::Timestamp {
    let millis = time.as_millis();
    let nanos = i32::try_from(millis.rem_euclid(1000) * 1_000_000).unwrap_or(0);
    protobuf::Timestamp { seconds: millis.div_euclid(1000), nanos }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_and_nanoseconds_also_before_the_epoch() {
        let wire = |ms| wire_time(Timestamp::from_millis(ms));
        assert_eq!((wire(1_500).seconds, wire(1_500).nanos), (1, 500_000_000));
        assert_eq!((wire(-1).seconds, wire(-1).nanos), (-1, 999_000_000));
    }

    #[test]
    fn every_phase_is_told() {
        let at = Timestamp::from_millis;
        let times = Times { accepted: at(1), fetched: at(2), started: at(3), ended: at(1_503), handed_over: at(1_504) };
        let mut result = ActionResult::default();
        stamp(&mut result, "worker", &times);
        let told = result.execution_metadata.unwrap();
        assert_eq!(told.worker, "worker");
        let ran = told.virtual_execution_duration.unwrap();
        assert_eq!((ran.seconds, ran.nanos), (1, 500_000_000));
        assert_eq!(told.worker_completed_timestamp, Some(wire_time(at(1_504))));
    }
}
