//! The crate as its user sees it, against a guest that was written apart from it.

mod bus;
mod guest_ring;
mod ring;
mod server;
mod server_gpadl;
mod server_hostile;
