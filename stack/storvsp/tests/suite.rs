//! The crate as its user sees it: a partition with a controller, wired up as a worker would, and a guest that speaks
//! like Linux.

mod conversation;
mod hostile;
mod machine;
mod requests;
#[path = "../../vmbus/tests/guest_ring.rs"]
mod ring;
