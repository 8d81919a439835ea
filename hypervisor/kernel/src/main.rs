//! The hypervisor image: joins `hal` and `model`, and boots the root partition.
//!
//! The boot order is in `boot.rs`. What runs afterwards starts in `root::run`, the loop of each LP.
#![cfg_attr(freestanding, no_std, no_main)]
#![cfg_attr(not(freestanding), allow(dead_code, reason = "a host builds only what it tests"))]

#[cfg(any(freestanding, test))]
mod load;

#[cfg(freestanding)]
mod child;
#[cfg(freestanding)]
mod hypercall;
#[cfg(freestanding)]
mod options;
#[cfg(freestanding)]
mod partition;
#[cfg(freestanding)]
mod port;
#[cfg(freestanding)]
mod root;
#[cfg(freestanding)]
mod stats;
#[cfg(freestanding)]
mod timer;
#[cfg(freestanding)]
mod vp;

#[cfg(freestanding)]
mod boot;

#[cfg(not(freestanding))]
fn main() {
    println!(
        "the hypervisor is built with: cargo build -p kernel --profile image --target x86_64-unknown-none"
    );
}
