//! From an `ExecReq` to an `ExecResp`.
//!
//! `compile` walks; the rest are rules without IO (`response` alone reads outputs). Messages of REAPI are
//! matter here, not wrapping: a digest is the hash of an encoded message.

pub mod action;
pub mod client_path;
pub mod compile;
pub mod decode;
pub mod input_tree;
pub mod inputs;
pub mod outputs;
pub mod platform;
pub mod refusal;
pub mod response;
pub mod running;
pub mod toolchain;
pub mod weight;
