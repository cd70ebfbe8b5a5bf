//! The harness of the end-to-end suites: a farm of the real programs in a directory of its own,
//! ways to hurt it, and checks that nothing is left of it.
//!
//! Everything here panics rather than returning errors: whoever calls is a test, and a panic says
//! where. Waiting is for events or for a condition with a deadline, never for time to pass.

#![forbid(unsafe_code)]

pub mod bridge;
pub mod compilers;
pub mod cxx_project;
pub mod farm;
pub mod files;
pub mod go_agent;
pub mod goma_build;
pub mod goma_client;
pub mod joined;
pub mod mote;
pub mod processes;
pub mod proxy;
pub mod ready;
pub mod root;
pub mod rpc;
pub mod wait;

pub use bridge::TestBridge;
pub use farm::{Instance, Programs, TestFarm};
pub use mote::{Mote, Ran, Running};

/// A small deterministic source of chance (SplitMix64), so that a failing round can be played again.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The same seed throws the same.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Seeded by `MOTE_TEST_SEED`, else by chance; the seed is printed.
    pub fn thrown(what: &str) -> Self {
        let seed = std::env::var("MOTE_TEST_SEED").ok().and_then(|text| text.parse().ok());
        let seed = seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
        wait::say(&format!("{what}: MOTE_TEST_SEED={seed}"));
        Self(seed)
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound.max(1)
    }

    /// `len` bytes that do not compress.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.number().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }
}
