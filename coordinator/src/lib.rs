//! The coordinator: leases instances, tracks their idle expiry, proxies commands and trees to
//! buildlets, and keeps everything that must survive in SQLite. ARCHITECTURE.md walks through it.

#![forbid(unsafe_code)]

pub mod app;
pub mod bootstrap;
pub mod cli;
pub mod config;
pub mod farm;
pub mod gate;
pub mod gomote;
pub mod grpc;
pub mod http;
pub mod identity;
pub mod link;
pub mod offline;
pub mod oidc;
pub mod peer;
pub mod provider;
pub mod registry;
pub mod run;
pub mod serve;
pub mod signed_in;
pub mod ssh;
pub mod store;
pub mod tls_files;
pub mod upload_rate;

pub use run::main_impl;
