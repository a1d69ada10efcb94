//! Link options of what ships.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // A build script is told `dev` of a profile that inherits from it; where its
    // output goes has the profile's own name.
    let out = std::env::var("OUT_DIR").unwrap_or_default();
    let ships = std::path::Path::new(&out).components().any(|part| part.as_os_str() == "dist");
    if ships && std::env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|env| env == "gnu") {
        // Functions whose code is the same are kept once, and each of a PIE's
        // 10,000 relocations takes some bits instead of 24 bytes.
        println!("cargo:rustc-link-arg-bins=-Wl,--icf=all");
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
