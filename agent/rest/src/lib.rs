//! The REST face: Docker's HTTP API over the engine. It owns listeners, connections, limits, routes and
//! streams; JSON shapes are `berth-api`'s, and every rule about containers and images is the engine's.

mod access;
mod body;
mod call;
mod connection;
mod error;
mod face;
mod handlers;
mod intake;
mod limits;
mod reply;
mod router;
mod routes;
mod server;
mod service;
mod socket;
mod stream;

pub use face::Face;
pub use service::Backend;
pub use socket::Listener;
