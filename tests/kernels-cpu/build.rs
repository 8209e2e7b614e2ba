//! Compiles `kernels/*.cu` for the CPU, with the shim in the place of CUDA.

fn main() {
    println!("cargo:rerun-if-changed=../../kernels");
    println!("cargo:rerun-if-changed=shim");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .opt_level(2)
        .define("CUDA_ON_CPU", None)
        .include("shim")
        .include("../../kernels")
        // Kernels look at the same bytes as words of different widths.
        .flag("-fno-strict-aliasing")
        // glibc's checked longjmp refuses to jump to another stack.
        .flag("-U_FORTIFY_SOURCE")
        .flag("-Wno-unknown-pragmas")
        .file("shim/kernels.cpp")
        .compile("kernels_cpu");
}
