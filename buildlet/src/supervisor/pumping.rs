//! From the command's pipes into the spool, within its bound.

use super::Supervisor;
use super::outputs::{Got, OutputPipe};
use crate::keeper::note;
use motefarm_core::exec::Ending;
use motefarm_core::{Clock as _, SystemClock};
use motefarm_proto::mote::exec_spec::Overflow;
use std::time::{Duration, Instant};

impl Supervisor {
    /// From here on what lies in the pipes is taken, bound or no bound: it is at most what pipes hold.
    pub(super) fn owe_what_waits(&mut self) {
        self.owed = self.outputs.iter().map(OutputPipe::waiting).collect();
    }

    /// Reads one pipe once and spools what came.
    pub(super) fn pump(&mut self, n: usize) -> bool {
        if self.unwritten.is_some() {
            return false;
        }
        let room = if self.bounded { self.spool.room() } else { usize::MAX };
        let most = room.max(self.owed[n]);
        if most == 0 {
            self.make_room(n);
            return false;
        }
        let output = &mut self.outputs[n];
        match output.read(self.buffer.room(most)) {
            Got::Bytes(length) => {
                self.owed[n] = self.owed[n].saturating_sub(length);
                self.unwritten = Some((output.stream(), SystemClock.now().as_millis(), length));
                self.retry_unwritten();
                self.nap = self.pace.after_read(length, Instant::now());
                if self.bounded && self.spool.room() == 0 {
                    self.make_room(n);
                }
                true
            }
            Got::Nothing => {
                self.owed[n] = 0;
                false
            }
            Got::End => {
                self.owed[n] = 0;
                true
            }
        }
    }

    pub(super) fn retry_unwritten(&mut self) {
        let Some((stream, time_ms, length)) = self.unwritten else { return };
        match self.spool.append(stream, time_ms, self.buffer.filled(length)) {
            Ok(()) => {
                self.unwritten = None;
                self.disk_noted = false;
            }
            Err(error) if !self.disk_noted => {
                self.disk_noted = true;
                note(&format!("the output waits for the disk: {error}"));
            }
            Err(_) => {}
        }
    }

    /// The spool is full: lets go of what was acknowledged, or does what the overflow policy says.
    fn make_room(&mut self, n: usize) {
        match self.spool.release(self.acknowledged) {
            Ok(true) => {}
            Ok(false) => {
                if self.overflow == Overflow::End && self.outputs[n].waiting() > 0 && self.exit.is_none() {
                    self.end_everything(Some(Ending::OutputLimit), Duration::ZERO);
                }
            }
            Err(error) => {
                note(&format!("acknowledged output can not be let go of, its bound is not held: {error}"));
                self.bounded = false;
            }
        }
    }

    /// Output before `offset` is safe elsewhere.
    pub(super) fn acknowledge(&mut self, offset: u64) {
        self.acknowledged = self.acknowledged.max(offset.min(self.spool.end()));
        if self.bounded && self.spool.room() == 0 {
            self.make_room(0);
        }
    }
}
