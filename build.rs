//! Tells `trainyard-ops` where libtorch lies, so that it runs without `LD_LIBRARY_PATH`.
//!
//! The path goes to that one binary as a linker argument: another libtorch relinks it and rebuilds nothing else.
//! Without the feature `torch` this does nothing.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    if std::env::var_os("CARGO_FEATURE_TORCH").is_none() {
        return;
    }
    if let Some(libtorch) = std::env::var_os("LIBTORCH") {
        println!("cargo:rustc-link-arg-bin=trainyard-ops=-Wl,-rpath,{}/lib", libtorch.to_string_lossy());
    }
}
