//! What a client makes of its server's latest answers: whether it may ask, must wait, may try again.
//! Time is handed in, since a client's start.

use std::collections::VecDeque;
use std::time::Duration;

/// Answers of this long count.
const WINDOW: Duration = Duration::from_secs(3);
/// More wrong ones than this of a hundred, and the server counts as ill.
const ILL_PERCENT: usize = 30;
/// Requests begun in one second before others have to wait.
const BUSY: usize = 700;
const SHORTEST_BACK_OFF: Duration = Duration::from_millis(500);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(5);
const BACK_OFF_STEP: f64 = 1.4;
/// After 302, 401 or 403 nothing is asked for this long, and up to twice.
const DISABLED: Duration = Duration::from_secs(600);
/// Then, from the first good answer on, ever more is.
const RAMP_UP: Duration = Duration::from_secs(600);

#[derive(Debug, Clone, Copy)]
enum Trust {
    Full,
    /// Sent away with this status; asks again from then on.
    Disabled(u16, Duration),
    /// A good answer came at that time.
    Returning(u16, Duration),
}

/// See the module.
#[derive(Debug)]
pub struct Health {
    /// When, and whether it was 200.
    answers: VecDeque<(Duration, bool)>,
    /// A second of the clock, requests begun in it, and wrong answers.
    second: (u64, usize, usize),
    back_off: Duration,
    trust: Trust,
}

impl Default for Health {
    fn default() -> Self {
        Self { answers: VecDeque::new(), second: (0, 0, 0), back_off: SHORTEST_BACK_OFF, trust: Trust::Full }
    }
}

impl Health {
    /// Whether a request may be made; else the status that forbids it. `chance` is thrown from 0 to 1.
    pub fn admit(&self, now: Duration, chance: f64) -> Result<(), u16> {
        match self.trust {
            Trust::Disabled(status, until) if now < until => Err(status),
            Trust::Returning(status, since) if chance > (now - since).as_secs_f64() / RAMP_UP.as_secs_f64() => {
                Err(status)
            }
            _ => Ok(()),
        }
    }

    /// Notes that a request begins; how long it has to wait before that, because this second was a bad one.
    pub fn begin(&mut self, now: Duration) -> Option<Duration> {
        self.turn(now);
        self.second.1 += 1;
        (self.second.2 > 0 || self.second.1 > BUSY).then_some(self.back_off)
    }

    /// A good answer.
    pub fn good(&mut self, now: Duration) {
        self.answer(now, true);
        self.back_off = self.back_off.div_f64(BACK_OFF_STEP).max(SHORTEST_BACK_OFF);
        self.trust = match self.trust {
            Trust::Disabled(status, until) if now >= until => Trust::Returning(status, now),
            Trust::Returning(_, since) if now - since >= RAMP_UP => Trust::Full,
            trust => trust,
        };
    }

    /// Another status, or none at all. `chance` is thrown from 0 to 1.
    pub fn bad(&mut self, now: Duration, status: Option<u16>, chance: f64) {
        self.answer(now, false);
        self.turn(now);
        self.second.2 += 1;
        self.back_off = self.back_off.mul_f64(BACK_OFF_STEP).min(LONGEST_BACK_OFF);
        if let Some(status @ (302 | 401 | 403)) = status {
            self.trust = Trust::Disabled(status, now + DISABLED.mul_f64(1.0 + chance));
        }
    }

    /// Whether an attempt that failed may be followed by another.
    pub fn is_well(&mut self, now: Duration) -> bool {
        self.forget(now);
        let wrong = self.answers.iter().filter(|(_, good)| !good).count();
        wrong * 100 <= self.answers.len() * ILL_PERCENT
    }

    /// How long to wait before another attempt to connect.
    pub const fn back_off(&self) -> Duration {
        self.back_off
    }

    fn answer(&mut self, now: Duration, good: bool) {
        self.forget(now);
        self.answers.push_back((now, good));
    }

    fn forget(&mut self, now: Duration) {
        while self.answers.front().is_some_and(|(when, _)| *when + WINDOW < now) {
            self.answers.pop_front();
        }
    }

    fn turn(&mut self, now: Duration) {
        if self.second.0 != now.as_secs() {
            self.second = (now.as_secs(), 0, 0);
        }
    }
}
