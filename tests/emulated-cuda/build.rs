//! Names the library as a driver's: whoever asks for `libcuda.so` after it was loaded gets this one.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libcuda.so");
}
