//! `mote-bridge doctor`: what stands between a Goma client and its server, why, and the line that mends it.
//!
//! The client itself says little: it calls itself ready whatever the server answers. So this looks at what the
//! client would look at, and then does what the client would do, up to a real compile:
//!
//! * [`catalogue`]: every kind of finding. [`report`]: what was found, and how it is told.
//! * [`variables`], [`environment`], [`authorization`]: what the variables say. [`server`]: where they lead.
//! * [`local_state`], [`http_proxy`], [`neighbours`], [`programs`]: what lies and runs on this machine.
//! * [`probe`]: what the server answers to a ping. [`trial`]: what becomes of a compile.
//! * [`examine`]: all of it, in order.

pub mod authorization;
pub mod catalogue;
pub mod connection;
pub mod environment;
pub mod examine;
pub mod flagz;
pub mod http_proxy;
pub mod local_state;
pub mod neighbours;
pub mod probe;
pub mod programs;
pub mod report;
pub mod server;
pub mod trial;
pub mod variables;
