//! Gives the shared library its soname. Programs that were linked with one version run with the next of the same
//! major version, which is 0 until the interface is stable. It exports the names of the header and no others.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        let major = std::env::var("CARGO_PKG_VERSION_MAJOR").unwrap_or_default();
        println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libexeunt.so.{major}");
        // Dependencies may have names for C of their own, which are nobody's business.
        println!("cargo::rustc-cdylib-link-arg=-Wl,--exclude-libs,ALL");
    }
}
