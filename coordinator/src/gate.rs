//! How often an address may fail to sign in.
//!
//! Tokens are 256 random bits: nobody guesses one. This keeps somebody who tries all the same, or a
//! program with an old token in a loop, from filling the database's time and the audit. Callers
//! behind one address share its budget, so whoever was known here lately is not held up by others.
//! Memory is bounded: beyond `MOST` entries the oldest knowledge goes. Time is handed in.

use motefarm_core::Timestamp;
use motefarm_net::token::SecretHash;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// Failures at once.
const BURST: u32 = 20;
/// Time in which one more is allowed.
const REFILL: Duration = Duration::from_secs(3);
/// How long a good token passes without a look at its address.
const KNOWN_FOR: Duration = Duration::from_secs(24 * 3600);
/// Addresses, and good tokens, remembered.
const MOST: usize = 10_000;

/// What to do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The first of this address for a while: worth a line in the audit.
    First,
    /// One of some.
    Again,
    /// The budget is used up by it: worth another line.
    Last,
}

/// See the module.
#[derive(Default)]
pub struct Gate(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// By address: when the budget will be whole again.
    whole_at: HashMap<IpAddr, Timestamp>,
    /// By hash: when it was last good.
    good: HashMap<[u8; 32], Timestamp>,
}

/// An address as a household has it: a whole IPv6 network of 64 bits.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Whether a token of this hash from this address may be looked up at `now`; otherwise how long to wait.
    pub fn admit(&self, address: IpAddr, hash: &SecretHash, now: Timestamp) -> Result<(), Duration> {
        let inner = self.lock();
        let debt = inner.whole_at.get(&network(address)).map_or(Duration::ZERO, |at| at.since(now));
        if debt <= REFILL * (BURST - 1) {
            return Ok(());
        }
        match inner.good.get(hash.as_bytes()) {
            Some(last) if now < *last + KNOWN_FOR => Ok(()),
            _ => Err(debt - REFILL * (BURST - 1)),
        }
    }

    /// A token was no good.
    pub fn failed(&self, address: IpAddr, now: Timestamp) -> Failure {
        let mut inner = self.lock();
        if inner.whole_at.len() >= MOST {
            inner.whole_at.retain(|_, at| *at > now);
            if inner.whole_at.len() >= MOST {
                inner.whole_at.clear();
            }
        }
        let whole_at = inner.whole_at.entry(network(address)).or_insert(now);
        let debt = whole_at.since(now);
        *whole_at = now + debt + REFILL;
        match debt {
            Duration::ZERO => Failure::First,
            _ if debt + REFILL > REFILL * (BURST - 1) => Failure::Last,
            _ => Failure::Again,
        }
    }

    /// A token was good.
    pub fn passed(&self, hash: &SecretHash, now: Timestamp) {
        let mut inner = self.lock();
        if inner.good.len() >= MOST {
            inner.good.clear();
        }
        inner.good.insert(*hash.as_bytes(), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(0) + Duration::from_secs(seconds)
    }

    #[test]
    fn an_address_has_a_budget_that_comes_back_and_good_tokens_do_not_wait_for_it() {
        let (gate, bad, good) = (Gate::default(), SecretHash::of("bad"), SecretHash::of("good"));
        let address: IpAddr = "10.1.2.3".parse().unwrap();
        gate.passed(&good, at(0));
        let told: Vec<Failure> = (0..BURST)
            .map(|_| {
                assert!(gate.admit(address, &bad, at(1)).is_ok());
                gate.failed(address, at(1))
            })
            .collect();
        assert_eq!((told[0], told[1], *told.last().unwrap()), (Failure::First, Failure::Again, Failure::Last));
        assert_eq!(gate.admit(address, &bad, at(1)), Err(REFILL));
        assert!(gate.admit(address, &good, at(1)).is_ok(), "known here");
        assert!(gate.admit("10.1.2.4".parse().unwrap(), &bad, at(1)).is_ok(), "another address");
        assert!(gate.admit(address, &bad, at(4)).is_ok(), "one came back");
        gate.failed(address, at(4));
        assert!(gate.admit(address, &bad, at(4)).is_err());
        assert!(gate.admit(address, &good, at(25 * 3600)).is_ok(), "after a day the budget is whole");
    }

    #[test]
    fn an_ipv6_network_is_one_address_and_memory_is_bounded() {
        let gate = Gate::default();
        for host in 0..u128::from(BURST) {
            gate.failed(Ipv6Addr::from_bits((0x2001_0db8 << 96) | host).into(), at(0));
        }
        let other = Ipv6Addr::from_bits((0x2001_0db8 << 96) | 0xffff);
        assert!(gate.admit(other.into(), &SecretHash::of("x"), at(0)).is_err());
        for n in 0..30_000u32 {
            gate.failed(IpAddr::from(n.to_be_bytes()), at(0));
            gate.passed(&SecretHash::of(&n.to_string()), at(0));
        }
        let inner = gate.lock();
        assert!(inner.whole_at.len() <= MOST && inner.good.len() <= MOST);
    }
}
