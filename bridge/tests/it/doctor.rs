//! `mote-bridge doctor`, the program itself, in environments like those of people for whom nothing works: each of
//! the ways in which that happens is made to happen, found by its id, and mended by the line that it was told.

mod compile;
mod http_proxy;
mod ids;
mod neighbours;
mod pages;
mod person;
mod server;
mod variables;
