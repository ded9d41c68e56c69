//! stub
/// stub
pub fn bytes() -> &'static [u8] {
    &[]
}
