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
        // What ships aborts on a panic and has no symbols: nobody could use half a
        // megabyte of tables for unwinding its stack.
        let script = std::path::Path::new(&out).join("no-unwinding.ld");
        let sections = "*(.eh_frame) *(.eh_frame_hdr) *(.gcc_except_table*)";
        let text = format!("SECTIONS {{ /DISCARD/ : {{ {sections} }} }} INSERT AFTER .text;\n");
        if std::fs::write(&script, text).is_ok() {
            println!("cargo:rustc-link-arg-bins=-Wl,--no-eh-frame-hdr");
            println!("cargo:rustc-link-arg-bins=-Wl,-T,{}", script.display());
        }
    }
}
