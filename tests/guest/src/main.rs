//! The test guest: a kernel of our own that proves the hypervisor's interface from inside, one case per boot.
//!
//! The command line chooses: `case=NAME` runs one case, `case=A,B` several one after the other, `case=list` prints
//! the table; `vps=N` says how many processors the machine has (default: as many as the case needs). The console
//! says `CASE NAME: begin` and then `CASE NAME: ok`, `CASE NAME: skipped REASON` or `CASE NAME: FAILED PLACE
//! REASON`; then the machine goes off. A case of the kind `fault` or `hang` does not come to an end by design:
//! what the worker makes of it is the result.
//!
//! A case knows the TLFS and the processor manuals and nothing of the hypervisor: what it demands stands in one of
//! them. The layers: `rt` is the machine (the only `unsafe` code), `cases` are the tests, `report` is how they fail.
#![cfg_attr(freestanding, no_std, no_main)]

#[cfg(freestanding)]
mod cases;
#[cfg(freestanding)]
mod report;
#[cfg(freestanding)]
mod rt;

#[cfg(not(freestanding))]
fn main() {
    println!(
        "the test guest is built with: cargo build -p guest --profile image --target x86_64-unknown-none"
    );
}
