//! Links the hypervisor image. A build for a host gets no link settings, and a `main` that says so.

use std::{env, path::Path};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=linker.ld");
    println!("cargo::rustc-check-cfg=cfg(freestanding)");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    println!("cargo::rustc-cfg=freestanding");
    let folder = env::var("CARGO_MANIFEST_DIR").expect("cargo names the package's folder");
    let script = format!("--script={}", Path::new(&folder).join("linker.ld").display());
    for argument in [
        script.as_str(),
        "--no-pie",
        "-z",
        "noexecstack",
        "-z",
        "max-page-size=0x1000",
        "--build-id=none",
        "--no-dynamic-linker",
        "--gc-sections",
        "--orphan-handling=error",
    ] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
}
